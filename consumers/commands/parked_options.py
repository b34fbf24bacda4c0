"""What the verbs of `drx-consumer parked` take alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.errors import ConfigError
from bridge.runtime.audit import audit_options
from consumers.api import Consumer
from consumers.runtime.parking import Filters

Command = TypeVar("Command", bound=Callable[..., Any])

# A century, which is longer than any lot and what PostgreSQL's calendar has room for.
OLDER_MAX_S = 3_155_760_000
# Keys per second; a thousand keys at the slowest take eleven days.
RATE_MIN, RATE_MAX = 0.001, 10_000.0

# What `--where` can ask for, and the name of the filter.
_WHERE = {"class": "cls", "code": "code", "topic": "topic", "older": "older_s"}


def name_argument(command: Command) -> Command:
    """Add NAME and the schema that makes a group of its own."""
    command = click.option("--schema", help="Of the one that is being built beside the live one.")(command)
    return click.argument("name")(command)


def topic_option(command: Command) -> Command:
    """Add the topic of a key."""
    return click.option("--topic", help="Needed where the consumer subscribes to several.")(command)


def partition_option(command: Command) -> Command:
    """Add the partition of a key."""
    text = "Where it is another one than Kafka's own partitioner chooses by the key."
    return click.option("--partition", type=click.IntRange(0, 2**31 - 1), help=text)(command)


def where_option(command: Command) -> Command:
    """Add filters."""
    text = "class=…, code=…, topic=… or older=SECONDS; all that are given must hold."
    return click.option("--where", multiple=True, metavar="NAME=VALUE", help=text)(command)


def rate_option(command: Command) -> Command:
    """Add how fast keys are asked for."""

    def checked(_context: click.Context, _parameter: click.Parameter, rate: float | None) -> float | None:
        if rate is not None and not RATE_MIN <= rate <= RATE_MAX:  # a range of click's lets pass what is no number
            msg = f"keys per second, from {RATE_MIN:g} to {RATE_MAX:g}"
            raise click.BadParameter(msg)
        return rate

    text = "Keys per second; without it all at once."
    return click.option("--rate", type=float, callback=checked, help=text)(command)


def json_option(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON line per item.")(command)


def decision_options(command: Command) -> Command:
    """Add who decides and why, and the trial."""
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(audit_options(command))


def filters_of(where: tuple[str, ...]) -> Filters:
    """Return what `--where` asks for.

    Raises:
        UsageError: No such filter.
    """
    given: dict[str, Any] = {}
    for each in where:
        name, equals, value = each.partition("=")
        if not equals or name not in _WHERE:
            msg = f"--where {each}: the filters are {', '.join(f'{known}=…' for known in _WHERE)}"
            raise click.UsageError(msg)
        given[_WHERE[name]] = value
    try:
        older_s = float(given.get("older_s", 0))
    except ValueError:
        older_s = -1.0
    if not 0 <= older_s <= OLDER_MAX_S:  # nor is it one of these when it is no number
        msg = f"--where older=… takes seconds, from 0 to {OLDER_MAX_S}"
        raise click.UsageError(msg)
    return Filters(**given | {"older_s": older_s})


def topic_of(consumer: Consumer, topic: str | None) -> str:
    """Return the topic that is meant.

    Raises:
        ConfigError: It could be one of several, or is none of the consumer's.
    """
    topics = consumer.topics
    if topic is None and len(topics) == 1:
        return topics[0]
    if topic is None or topic not in topics:
        msg = f"--topic: one of {', '.join(topics)}"
        raise ConfigError(msg)
    return topic
