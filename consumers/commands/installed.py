"""Installed consumers: entry points of one group, each a `Consumer` or a function that builds one."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from prometheus_client import CollectorRegistry

from bridge.errors import BridgeError, ConfigError, PermanentError, TransientError
from bridge.runtime.configuration import place_of
from bridge.runtime.process import with_brokers
from consumers.api import Consumer, Setup, build, takes_setup
from consumers.postgres.pool import COMMAND_TIMEOUT_S, Database, open_database
from consumers.runtime.groups import GroupView, open_group
from consumers.settings import ConsumerSettings, load_settings, section

GROUP = "drx_bridge.consumers"


# Remedies by error code of PostgreSQL.
_ADVICE = {
    "no_schema": "run `drx-consumer init`",
    "no_table": "run `drx-consumer init`",
    "not_permitted": "the user of CONSUMER_POSTGRES__DSN lacks a permission",
    "authentication_failed": "user or password of CONSUMER_POSTGRES__DSN",
    "no_database": "there is no such database; see CONSUMER_POSTGRES__DSN",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A consumer with the settings of its process and the registry of its metrics."""

    settings: ConsumerSettings
    consumer: Consumer
    registry: CollectorRegistry
    named: str  # the consumer as in a command line, for advice: its name, and `--schema` if given

    @property
    def schema(self) -> str:
        """Schema of its tables; its name if it has none."""
        return self.consumer.name if self.consumer.tables is None else self.consumer.tables.schema

    @asynccontextmanager
    async def open_database(self, command: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> AsyncIterator[Database]:
        """Open the consumer's database for an operator's `command`, on one connection."""
        name = f"drx-consumer {command} {self.consumer.name}"
        try:
            async with open_database(
                self.settings.postgres.address(), size=1, application_name=name, command_timeout_s=timeout_s
            ) as database:
                yield database
        except (TransientError, PermanentError) as exc:
            advice = _ADVICE.get(exc.code)
            raise ConfigError(f"PostgreSQL: {exc.code}" + (f" → {advice}" if advice else "")) from None

    def open_group(self) -> AbstractAsyncContextManager[GroupView]:
        """Open a view of its group in Kafka."""
        return open_group(self.settings.kafka.connection, self.consumer.group, self.consumer.topics)


def choose(name: str, *, schema: str | None = None, bootstrap_servers: str | None = None) -> Chosen:
    """Build a consumer from the settings, which `schema` and `bootstrap_servers` override; may raise `ConfigError`."""
    found = installed()
    if name not in found:
        known = ", ".join(sorted(found)) or "none is installed"
        raise ConfigError(f"no consumer named {name!r} ({known}); the entry-point group is {GROUP}")
    settings = with_brokers(load_settings(found), bootstrap_servers)
    registry = CollectorRegistry()
    given = settings.options(name)
    own = {**given, **({} if schema is None else {"schema": schema})}
    consumer = _built(found[name], own, registry)
    if given and not takes_setup(found[name].load()):
        where = place_of(type(settings), section(name), min(given))
        msg = f"{where}: unknown setting; consumer {name!r} takes none: its entry point names no function of a Setup"
        raise ConfigError(msg)
    if schema is not None and (consumer.tables is None or consumer.tables.schema != schema):
        raise ConfigError(f"consumer {name!r} has no setting for its schema, so there can be only the live one")
    return Chosen(settings, consumer, registry, name if schema is None else f"{name} --schema {schema}")


def installed() -> dict[str, EntryPoint]:
    """Return the installed consumers by name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        own = section(point.name)
        if own in found:
            both = " and ".join(
                f"{each.value} of {each.dist.name if each.dist else 'a package'}" for each in (found[own], point)
            )
            raise ConfigError(f"two consumers are named {point.name!r}, {both}: uninstall or rename one")
        found[own] = point
    return {point.name: point for point in found.values()}


def _built(point: EntryPoint, options: Mapping[str, str], registry: CollectorRegistry) -> Consumer:
    try:
        consumer = build(point.load(), Setup(options, registry))
    except BridgeError:
        raise
    except ModuleNotFoundError as exc:
        extra = f": pip install 'drx-bridge[{point.name}]'" if point.value.startswith("consumers.") else ""
        raise ConfigError(f"consumer {point.name!r} needs {exc.name}, which is not installed{extra}") from exc
    except Exception as exc:  # third-party code, which may raise anything
        raise ConfigError(f"consumer {point.name!r} cannot be loaded from {point.value}: {type(exc).__name__}") from exc
    if not isinstance(consumer, Consumer):
        msg = f"consumer {point.name!r}: {point.value} is neither a Consumer nor a function that returns one"
        raise ConfigError(msg)
    if consumer.handle is None:
        raise ConfigError(f"consumer {point.name!r} has no handler: decorate one function with @consumer.handler")
    if not consumer.topics:
        raise ConfigError(f"consumer {point.name!r} subscribes to no topic")
    return consumer
