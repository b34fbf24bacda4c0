"""`drx-bridge log`: the deliveries in an ingress's log, with the meaning of their codes."""

import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import click
import orjson

from bridge import response_codes
from bridge.runtime.screen import printable

_PREFIX = "delivery."
_DETAILS = ("reason", "detail", "field", "event_type", "reported_type")


class LoggedDelivery(NamedTuple):
    """A delivery and its outcome, as logged by the ingress."""

    time: str
    source: str
    outcome: str
    code: str  # empty if the delivery became events
    details: str  # such as the invalid field, or the event's type
    meaning: str  # meaning of the code, as a sentence; empty without a code
    event_id: str  # hashed, as `drx-bridge hash-id` prints it; empty if the delivery was refused

    def __str__(self) -> str:
        words = (f"{self.time}  {self.outcome:<11}  {self.source:<12}", f"{self.code} {self.details}".strip())
        sentence = "  ".join(words) + (f": {self.meaning}" if self.meaning else "")
        return printable(f"{sentence}  {self.event_id}".rstrip())


def logged_deliveries(lines: Iterable[bytes]) -> Iterator[LoggedDelivery]:
    """Yield the deliveries of a log; other lines, and prefixes before a line's JSON, are ignored."""
    for line in lines:
        try:
            fields = orjson.loads(line[line.index(b"{") :])
        except ValueError:
            continue
        event = str(fields.get("event"))
        if not event.startswith(_PREFIX):
            continue
        outcome, code = event.removeprefix(_PREFIX), str(fields.get("code", ""))
        words = (str(fields.get(name) or "") for name in _DETAILS)
        details = " ".join(word for word in words if word and word not in code)  # do not repeat `mismatch`
        # The detail names one of the causes that the meaning lists, so the meaning is left out.
        meaning = "" if fields.get("detail") else response_codes.meaning(outcome, code)
        time, source, event_id = (str(fields.get(name) or "") for name in ("timestamp", "source", "event_id"))
        yield LoggedDelivery(time, source, outcome, code, details, meaning, event_id)


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--failed", is_flag=True, help="Only deliveries that were refused, parked or unavailable.")
@click.option("--source", help="Only deliveries of this source.")
def log(*, file: BinaryIO, failed: bool, source: str | None) -> int:
    """Print a line for each delivery in FILE, the log of an ingress, or on standard input.

    A line ends with the hash of the delivery's id, which `drx-bridge hash-id ID` prints, unless it was refused.

    To follow a running ingress: tail -F FILE | drx-bridge log; or kubectl logs -f POD | drx-bridge log.
    """
    if file.isatty():
        click.echo("reading a log from standard input; Ctrl-C ends it", err=True)
    for each in logged_deliveries(file):
        if (each.code or not failed) and source in {None, each.source}:
            click.echo(str(each))
            sys.stdout.flush()
    return 0
