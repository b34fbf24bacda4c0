"""The interface of consumers: how to declare a handler, how it is run, and its arguments."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from bridge.event import Event

# Records per batch; from 50 to 200, PostgreSQL stops getting faster (53,000 to 81,000 events/s for the SQL alone).
BATCH_RECORDS = 200
BATCH_WAIT_S = 0.05
# Attempts at a record that may be at fault, while others succeed; delays of 0.2 to 30 s with full jitter.
ATTEMPTS = 5
HANDLER_TIMEOUT_S = 30.0
# Bounds on records read and not settled, per partition and per process.
WINDOW_RECORDS = 1_024
WINDOW_BYTES = 32 * 1024 * 1024
# Bytes; fits a topic's default `max.message.bytes` (1,048,588), with room for Kafka's overhead.
PUBLISH_MAX_BYTES = 1_000_000
# Header of a published record: `<group>:<topic>:<partition>:<offset>:<number>` of the handled event, and the number of
# the record among those published for it, from 0. The same in each repeat, also after a database restore.
OUTBOX_HEADER = "drx_outbox"


@dataclass(frozen=True, slots=True)
class Lanes:
    """Handle events one by one, several keys at a time and each key in order.

    In `transactional` lanes the handler gets a database connection whose transaction also settles the record, so that
    its writes there take effect exactly once. Otherwise its effects must be idempotent.
    """

    count: int = 8  # keys at one time; fewer if the process may not open a connection for each
    transactional: bool = False
    window_bytes: int = WINDOW_BYTES  # records read and not settled, of all partitions of a process

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"a consumer needs at least one lane, not {self.count}")


@dataclass(frozen=True, slots=True)
class Batches:
    """Handle the events of one partition many at a time, in one transaction; effects happen exactly once.

    If a batch fails, its events are handled again one by one, each as a batch in its own transaction.
    """

    records: int = BATCH_RECORDS
    wait_s: float = BATCH_WAIT_S  # seconds to wait for a full batch; not at all once the window is full
    window_records: int = WINDOW_RECORDS  # records of a partition, read and not settled
    window_bytes: int = WINDOW_BYTES  # the same of all partitions of a process

    def __post_init__(self) -> None:
        if self.records < 1:
            raise ConfigError(f"a batch needs at least one record, not {self.records}")
        if self.records > self.window_records:
            msg = f"batches of {self.records} records are never full: the window holds {self.window_records}"
            raise ConfigError(msg)


class Outgoing(NamedTuple):
    """A record that a handler publishes."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]


@dataclass(slots=True)
class Context:
    """Position of an event, its attempt, and the resources of its handler."""

    group: str
    topic: str
    partition: int
    offset: int
    ordinal: str  # `<ingress instance>:<number>`, increasing in the order of acceptance; empty for a foreign record
    attempt: int  # from 1; a call that fails because the service is away does not count
    # A PostgreSQL connection inside the settling transaction, in `Batches` and transactional `Lanes`.
    connection: Any = field(default=None, repr=False)
    resource: Any = field(default=None, repr=False)  # the value that `Consumer.around` yielded
    traceparent: str = ""  # W3C trace context of the delivery; empty for a foreign record
    origin: str = ""  # `import` or `replay` if an operator posted it (header `drx_origin`)
    outgoing: list[Outgoing] = field(default_factory=list, repr=False, compare=False)

    def publish(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a record to `topic`, one of `Consumer.publishes`, once this event is settled.

        It is stored by the transaction that settles the event: exactly once, and not at all if the handler fails. It is
        written to the topic at least once; a repeat has the same `drx_outbox` header. Records published under one key
        by events of one key keep their order. Strings are encoded as UTF-8.

        Raises:
            ValueError: Key, value and headers are larger than `PUBLISH_MAX_BYTES`, or a string has lone surrogates.
            AttributeError: Key or value is neither a string nor bytes, or a header is not a string.
        """
        own = dict(headers or {})
        name = f"{self.group}:{self.topic}:{self.partition}:{self.offset}:{len(self.outgoing)}"
        made = Outgoing(topic, _encoded(key), _encoded(value), own | {OUTBOX_HEADER: name})
        texts = [text.encode() for header in own.items() for text in header]
        if sum(map(len, (made.key or b"", made.value or b"", *texts))) > PUBLISH_MAX_BYTES:
            raise ValueError(PUBLISH_MAX_BYTES)
        self.outgoing.append(made)


class Setup(NamedTuple):
    """The argument of an entry point's function that builds a `Consumer`."""

    options: Mapping[str, str]  # the consumer's settings (`CONSUMER_<NAME>__<KEY>`), keys in lower case
    registry: CollectorRegistry  # registry for its own metrics, served with the runtime's metrics


class Placed(NamedTuple):
    """One event of a batch and its position."""

    event: Event
    context: Context


EventHandler = Callable[[Event, Context], Awaitable[None]]
BatchHandler = Callable[[Sequence[Placed], Any], Awaitable[None]]
"""Handles events not applied before, in order, with the connection of the settling transaction."""
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[None]])
Job = Callable[..., Awaitable[None]]


class PeriodicJob(NamedTuple):
    """Periodic work, run by one process of the group; see `Consumer.job`."""

    run: Job
    every_s: float
    resource: bool = False

    async def once(self, connection: Any, resource: Any) -> None:
        """Run the job once."""
        await (self.run(connection, resource) if self.resource else self.run(connection))


class Tables(NamedTuple):
    """A consumer's own tables, created and upgraded by `drx-consumer init`."""

    migrations: Any  # directory or package resource with files `0001_words.sql`; `{schema}` in them becomes `schema`
    schema: str  # must not be another consumer's


class History(NamedTuple):
    """A table of single events whose rows `drx-consumer prune` may delete."""

    table: str  # with its schema, quoted if needed; has the columns source, event_id, topic, partition and "offset"
    time: str  # column of the time for the horizon; with an index, such as BRIN
    condition: str  # SQL condition of rows no longer needed: `t` is the row, $3 the horizon


@dataclass(slots=True)
class Consumer:
    """One independent subscriber; its group id is the `service` label of its metrics.

    Attributes:
        topics: Topics to subscribe to.
        mode: How the handler is run: `Lanes` or `Batches`.
        types: Patterns of event types to handle (`renewal.*`); others are settled without calling the handler.
        unknown: For a record whose type matches `types` but is unknown to this release: park its key, skip and count
            it, or end the process.
        handler_timeout_s: A handler that takes longer has failed, and may be retried.
        attempts: Failed attempts at a record, while calls for other keys succeeded, after which its key is parked; at
            least 1. Failures that would affect every record do not count.
        group: Group id, if not the name.
        tables: Its own tables in the database that settles its records.
        history: Tables with rows of single events, for `drx-consumer prune`.
        around: Context manager for a resource of handlers, such as a session with another system, which they get as
            `Context.resource`. A handler that returns without reading that attribute has not called its sink, so the
            circuit breaker ignores it. A retriable `BridgeError` at entry is retried; a `ConfigError` ends the process
            with exit code 2 before anything is read.
        prepare: Checks that the target of its handlers exists and belongs to them, in a transaction of the database
            with its tables. Called by `drx-consumer init`, after it created the tables, and at each start. A
            `ConfigError` ends either with exit code 2, and `drx-consumer doctor` reports it; a start retries retriable
            errors.
        publishes: Topics that its handlers publish to, which must exist; see `Context.publish`.
        discloses: Where health information goes, besides the database that settles records, a line each, for
            `drx-consumer doctor`; None: not declared.
        ping: Checks that the sink of the handlers works, given the resource of `around`, and raises if not. While the
            circuit is open, a record is tried only after a successful ping. The database that settles records is
            checked without this.
        lacks: Queries what that sink lacks for this consumer, a line each, for `drx-consumer doctor`; without `around`
            it is given the database that settles records, or None before `init`.
    """

    name: str
    topics: Sequence[str]
    mode: Lanes | Batches = field(default_factory=Lanes)
    types: Sequence[str] = ("*",)
    unknown: Literal["skip", "park", "fail"] = "park"
    handler_timeout_s: float = HANDLER_TIMEOUT_S
    attempts: int = ATTEMPTS
    group: str = ""
    tables: Tables | None = None
    history: History | None = None
    around: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    prepare: Job | None = None
    publishes: Sequence[str] = ()
    discloses: Sequence[str] | None = None
    ping: Callable[[Any], Awaitable[None]] | None = None
    lacks: Callable[[Any], Awaitable[Sequence[str]]] | None = None
    handle: EventHandler | BatchHandler | None = field(default=None, repr=False)
    jobs: list[PeriodicJob] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.group = self.group or self.name
        for field_name in ("topics", "types", "publishes", "discloses"):
            # To a type checker, a string is a sequence of strings: its characters would be used as topics or types.
            if isinstance(getattr(self, field_name), str):
                raise ConfigError(f"consumer {self.name!r}: {field_name} must be a list, even for one")
        if self.attempts < 1:
            raise ConfigError(f"consumer {self.name!r}: attempts must be at least 1")
        for function in (self.handle, self.prepare, self.ping):
            if function is not None:
                self._demand_async(function)

    def handler(self, function: _Handler) -> _Handler:
        """Decorate the one function that applies events: `(event, context)`, or `(batch, connection)` in batches."""
        if self.handle is not None:
            raise ConfigError(f"consumer {self.name!r} has two handlers")
        self._demand_async(function)
        self.handle = function
        return function

    def job(self, *, every_s: float, resource: bool = False) -> Callable[[Job], Job]:
        """Decorate a function `(connection)` that runs every `every_s` seconds, in one process of the group.

        With `resource` it is called as `(connection, resource)`, with the resource of `around`.
        """

        def register(function: Job) -> Job:
            self._demand_async(function)
            self.jobs.append(PeriodicJob(function, every_s, resource))
            return function

        return register

    def within(self, connections: int) -> "Consumer":
        """Return the consumer with as many transactional lanes as a pool of `connections` allows, one for each lane.

        Each job occupies one, too; one more is left for short work, such as claims and progress.
        """
        if not isinstance(self.mode, Lanes) or not self.mode.transactional:
            return self
        count = max(1, min(self.mode.count, connections - 1 - len(self.jobs)))
        return replace(self, mode=replace(self.mode, count=count))

    def one_at_a_time(self) -> "Consumer":
        """Return the consumer with one record at a time, per partition with batches, in all with lanes."""
        if isinstance(self.mode, Lanes):
            return replace(self, mode=replace(self.mode, count=1))
        return replace(self, mode=replace(self.mode, records=1))

    @property
    def transactional(self) -> bool:
        """Whether the handler works inside the settling transaction."""
        return not isinstance(self.mode, Lanes) or self.mode.transactional

    def wants(self, event_type: str) -> bool:
        """Whether events of this type are handled."""
        return any(fnmatchcase(event_type, pattern) for pattern in self.types)

    def _demand_async(self, function: Callable[..., Any]) -> None:
        """Refuse a synchronous function: it would take effect before its result turns out not to be awaitable."""
        if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise ConfigError(f"consumer {self.name!r}: {name} must be declared with `async def`")


def takes_setup(made: object) -> bool:
    """Return whether an entry point is a function with a `Setup` argument, and so has its own settings."""
    return callable(made) and bool(inspect.signature(made).parameters)


def build(made: Any, setup: Setup) -> Any:
    """Return the consumer of an entry point, or of its function, called with or without a `Setup`."""
    if takes_setup(made):
        return made(setup)
    return made() if callable(made) else made


def _encoded(text: str | bytes | None) -> bytes | None:
    return text if text is None or isinstance(text, bytes) else text.encode()
