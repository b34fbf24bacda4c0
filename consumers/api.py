"""The interface of consumers: how a handler is declared, how it is run, and its arguments."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from bridge.event import Event

# Batches of 50 to 200 are where PostgreSQL stops gaining (53,000 to 81,000 events/s for the SQL alone).
BATCH_RECORDS = 200
BATCH_WAIT_S = 0.05
# Attempts at a record that may be at fault, while others pass; with full jitter from 0.2 to 30 s between them.
ATTEMPTS = 5
HANDLER_TIMEOUT_S = 30.0
# Records that are taken in and not settled are bounded per partition and per process.
WINDOW_RECORDS = 1_024
WINDOW_BYTES = 32 * 1024 * 1024
# Fits the default `max.message.bytes` of a topic (1,048,588), with room for what Kafka adds.
PUBLISH_MAX_BYTES = 1_000_000
# `<group>:<topic>:<partition>:<offset>:<number>` of what a handler publishes: the event it was handed, and which record
# of those that it published for it, from 0. The same in each repeat, also after the database was restored.
OUTBOX_HEADER = "drx_outbox"


@dataclass(frozen=True, slots=True)
class Lanes:
    """Handle events one by one, several keys at a time and each key in order.

    In `transactional` lanes the handler gets a database connection whose transaction also settles the record, so that
    what it writes there happens exactly once. Without, its effects must be idempotent.
    """

    count: int = 8  # keys at one time; fewer where the process may have no connection for each
    transactional: bool = False
    window_bytes: int = WINDOW_BYTES  # of the records that are taken in and not settled, of all partitions of a process

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"a consumer needs at least one lane, not {self.count}")


@dataclass(frozen=True, slots=True)
class Batches:
    """Handle the events of one partition many at a time, in one transaction; effects happen exactly once.

    When a batch fails, its events are handled again one by one, each as a batch and in a transaction of its own.
    """

    records: int = BATCH_RECORDS
    wait_s: float = BATCH_WAIT_S  # of one that is not full, for more; not at all once the window is full
    window_records: int = WINDOW_RECORDS  # of a partition, taken in and not settled
    window_bytes: int = WINDOW_BYTES  # of them, of all partitions of a process

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
    """Where an event stands and how often it was tried."""

    group: str
    topic: str
    partition: int
    offset: int
    ordinal: str  # `<ingress instance>:<number>`, rising in the order of acceptance; empty for a foreign record
    attempt: int  # 1 for the first; a call that fails because the service is away uses up none
    # A PostgreSQL connection inside the settling transaction, in `Batches` and transactional `Lanes`.
    connection: Any = field(default=None, repr=False)
    resource: Any = field(default=None, repr=False)  # what `Consumer.around` yielded
    traceparent: str = ""  # W3C trace context of the delivery; empty for a foreign record
    origin: str = ""  # `import` or `replay` where it did not come from a sender just now (header `drx_origin`)
    outgoing: list[Outgoing] = field(default_factory=list, repr=False, compare=False)

    def publish(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Have a record written to `topic`, one of `Consumer.publishes`, once this event is settled.

        It is kept in the transaction that settles the event, so exactly once, and not at all if the handler fails. The
        topic gets it at least once; a repeat has the same `drx_outbox` header. Records that events of one key publish
        under one key keep their order. Text is written as UTF-8.

        Raises:
            ValueError: Key, value and headers are larger than `PUBLISH_MAX_BYTES`, or a text is not Unicode.
            AttributeError: Key or value is neither text nor bytes, or a header is not text.
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

    options: Mapping[str, str]  # its own settings (`CONSUMER_<NAME>__<KEY>`), keys in lower case
    registry: CollectorRegistry  # of its own metrics, which are served with those of the runtime


class Placed(NamedTuple):
    """One event of a batch and where it stands."""

    event: Event
    context: Context


EventHandler = Callable[[Event, Context], Awaitable[None]]
BatchHandler = Callable[[Sequence[Placed], Any], Awaitable[None]]
"""Gets events that were never applied before, in order, and the connection of the settling transaction."""
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[None]])
Job = Callable[..., Awaitable[None]]


class PeriodicJob(NamedTuple):
    """Work that no event causes, once a period in the whole group; see `Consumer.job`."""

    run: Job
    every_s: float
    resource: bool = False

    async def once(self, connection: Any, resource: Any) -> None:
        """Run it."""
        await (self.run(connection, resource) if self.resource else self.run(connection))


class Tables(NamedTuple):
    """Tables of a consumer's own, made and kept up to date by `drx-consumer init`."""

    migrations: Any  # directory or package resource with files `0001_words.sql`; `{schema}` in them stands for `schema`
    schema: str  # no other consumer's


class History(NamedTuple):
    """A table of single events that `drx-consumer prune` may delete rows of."""

    table: str  # with its schema, quoted as needed; has the columns source, event_id, topic, partition and "offset"
    time: str  # column of the time that counts; with an index, such as BRIN
    condition: str  # SQL of what nothing needs any more: `t` is the row, $3 the time before which events may go


@dataclass(slots=True)
class Consumer:
    """One independent subscriber; its group id is the `service` label of its metrics.

    Attributes:
        topics: Topics to subscribe to.
        mode: How the handler is run.
        types: Patterns of event types to handle (`renewal.*`); the others are settled unseen.
        unknown: For a record whose type is one of `types` and not known to this release: its key is parked, it is
            skipped and counted, or the process ends.
        handler_timeout_s: A handler that takes longer has failed, and may be tried again.
        attempts: Failed attempts at a record, with calls for other keys that passed in between, after which its key is
            parked; at least 1. Failures that every record would meet do not count.
        group: Group id if it is not the name.
        tables: Tables of its own in the database that settles its records.
        history: Rows that its tables keep of single events, for `drx-consumer prune`.
        around: Opens what handlers need, such as a session with another system, and closes it after the last of them;
            handlers get what it yields as `Context.resource`. A handler that returns without having read that has not
            called its sink: it tells the circuit nothing. A retriable `BridgeError` on the way in is waited for; a
            `ConfigError` ends the process with exit code 2 before anything is read.
        prepare: Sees that what its handlers write to is there and is theirs, given a connection in a transaction of the
            database that has its tables: when `drx-consumer init` has made those, and at each start. A `ConfigError`
            ends either with exit code 2, and `drx-consumer doctor` reports it; a start waits for what is retriable.
        publishes: Topics that its handlers publish to, which must be there; see `Context.publish`.
        discloses: Where health information goes, apart from the database that settles records, a line each, for
            `drx-consumer doctor`; None: not declared.
        ping: Asks the sink of the handlers, given what `around` yielded, whether it works, and raises when it does not.
            While the circuit is open, a record is tried only after one that passed. The database that settles records
            is asked without this.
        lacks: Asks that sink what it lacks for this consumer, a line each, for `drx-consumer doctor`.
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
            # A text is a sequence of texts to a type checker: its characters would be taken for topics or types.
            if isinstance(getattr(self, field_name), str):
                raise ConfigError(f"consumer {self.name!r}: {field_name} must be a list, also of one")
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
        """Decorate a function `(connection)` that runs every `every_s` seconds, on one process of the group.

        With `resource` it is called as `(connection, resource)`, the second being what `around` yielded.
        """

        def register(function: Job) -> Job:
            self._demand_async(function)
            self.jobs.append(PeriodicJob(function, every_s, resource))
            return function

        return register

    def within(self, connections: int) -> "Consumer":
        """Return it with as many transactional lanes as a pool of `connections` carries: each keeps one for long.

        So does each job; one more is left for what only takes moments, such as claims and progress.
        """
        if not isinstance(self.mode, Lanes) or not self.mode.transactional:
            return self
        count = max(1, min(self.mode.count, connections - 1 - len(self.jobs)))
        return replace(self, mode=replace(self.mode, count=count))

    def one_at_a_time(self) -> "Consumer":
        """Return it with one record in hand of a partition, and with lanes of all of them."""
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
        """Refuse a synchronous function: its effect would be there before its result turns out not to be awaitable."""
        if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise ConfigError(f"consumer {self.name!r}: {name} must be declared with `async def`")


def takes_setup(made: object) -> bool:
    """Whether what an entry point names is a function that gets a `Setup`, and so the consumer's own settings."""
    return callable(made) and bool(inspect.signature(made).parameters)


def build(made: Any, setup: Setup) -> Any:
    """Return what an entry point names, or what the function that it names returns, with or without a `Setup`."""
    if takes_setup(made):
        return made(setup)
    return made() if callable(made) else made


def _encoded(text: str | bytes | None) -> bytes | None:
    return text if text is None or isinstance(text, bytes) else text.encode()
