"""The files of the lake: each is staged, and moved to where readers look once it is committed.

    <root>/owner                                                                   id of the archive that writes here
    <root>/staging/<uuid>.parquet                                                  not for readers
    <root>/staging/<uuid>.day/                                                     a day with fewer files, as above
    <root>/events/topic=…/received_date=YYYY-MM-DD/pPP-FIRST-LAST-….parquet        one batch
    <root>/events/topic=…/received_date=YYYY-MM-DD/merged-….parquet                several batches
    <root>/unrecognized/received_date=YYYY-MM-DD/…                                 the same, of another schema

A file is written completely, then recorded by the transaction that settles its events, and only then moved to its
published name. A staged file that was never recorded, by a process that died or lost its partition, is removed after an
hour. So readers need no list of files: every file below `events/` is valid, and each event is in one file.

Batches that are not published yet can be merged into one file at any time: a transaction records it instead of them.
For the published files of a past day, a directory is staged that has one file instead of many, and hard links to the
others. Once that is recorded, one system call exchanges it with the directory of the day. A reader that lists the day
gets either the old files or the new one. The old directory is removed after an hour.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple
from uuid import uuid4

import pyarrow as pa  # noqa: TID251 - this module wraps it
from pyarrow import parquet  # noqa: TID251 - as above

from bridge.errors import ConfigError, TransientError
from bridge.runtime.failpoints import hit
from consumers.archive.stores import STAGING, Store

EVENTS, UNRECOGNIZED = "events", "unrecognized"
# A transaction ends seconds after its file was written.
ORPHAN_S = 3600.0
_OWNER = "owner"
# Digits of the staged name (a random UUID) that make a published name unique within its day.
NAME_PART = 12
# Name of a staged directory that replaces a day.
DAY = ".day"
# zstd level; 5,000 events take 40 ms.
_LEVEL = 3
# Rows merged at a time: as many as in the largest batch.
_GROUP_ROWS = 20_000
# Tables collected before they are combined, since a table of one row takes 200 KB.
_TABLES_MAX = 100


class Staged(NamedTuple):
    """A complete file that is not published yet."""

    name: str
    rows: int
    bytes: int
    columns: str


class Merged(NamedTuple):
    """A staged merge of several files, and the path that it will be published under."""

    staged: Staged
    path: str


@dataclass(eq=False, repr=False)
class Lake:
    """Writes and names files; `root` is its name in messages.

    Every call may block. It raises a systemic `TransientError` while the store is away or (`lake_missing`) another lake
    replaced it, and `ConfigError` if waiting cannot help.
    """

    store: Store
    root: str
    _owner: bytes | None = None

    def claim(self, archive: str, *, begun: bool) -> None:
        """Check that the lake is writable, and claim it for this archive permanently.

        Another archive, or the same with an emptied database, would write the same events again. An archive that has
        `begun` in one root must not continue in another, such as the empty directory of an unmounted volume.
        """
        self.store.open()
        owner = self.store.read(_OWNER)
        if owner is None:
            if any(map(self.store.files, (EVENTS, UNRECOGNIZED))):
                raise ConfigError(f"archive.root: {self.root} has files of no archive; name an empty one")
            if begun:
                raise ConfigError(
                    f"archive.root: {self.root} is empty, and this archive has files in another root; mount or name"
                    " that one, or start again with another schema"
                )
            self.store.write(_OWNER, archive.encode())
            owner = self.store.read(_OWNER)
        if owner != archive.encode():
            raise ConfigError(f"archive.root: {self.root} is the lake of another database or schema; name an empty one")
        self._owner = owner

    def stage(self, table: pa.Table) -> Staged:
        """Write a staged file."""
        self._demand_lake()
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd", compression_level=_LEVEL)
        content = sink.getvalue().to_pybytes()
        name = f"{uuid4().hex}.parquet"
        self.store.write(f"{STAGING}/{name}", content)
        return Staged(name, table.num_rows, len(content), _columns(table.schema))

    def merge(self, names: Sequence[str], directory: str) -> Merged | None:
        """Stage one file merged from several staged ones; None if one of these is missing."""
        sources = [f"{STAGING}/{name}" for name in names]
        if not all(map(self.store.exists, sources)):
            self._demand_lake()
            return None
        name = f"{uuid4().hex}.parquet"
        return Merged(self._merged(sources, name, f"{STAGING}/{name}"), f"{directory}/{_name(name)}")

    def merge_day(self, names: Sequence[str], directory: str) -> Merged | None:
        """Stage a day with one file instead of `names`; None if one of them is missing. Other files are kept."""
        self._demand_lake()
        others = {each.name for each in self.store.entries(directory)} if self.store.exists(directory) else set()
        if not others.issuperset(names):
            return None
        name = f"{uuid4().hex}{DAY}"
        sources = [f"{directory}/{each}" for each in names]
        staged = self._merged(sources, name, f"{STAGING}/{name}/{_name(name)}")
        for each in others.difference(names):
            self.store.link(f"{directory}/{each}", f"{STAGING}/{name}/{each}")
        return Merged(staged, f"{directory}/{_name(name)}")

    def names(self) -> set[str]:
        """Return the names of staged files, and then the paths of published ones, to which staged ones are moved."""
        staged = {each.name for each in self.store.entries(STAGING)}
        return staged.union(*map(self.store.files, (EVENTS, UNRECOGNIZED)))

    def publish(self, name: str, path: str) -> bool:
        """Move a committed file to its published path; False if it is neither staged nor published."""
        if name.endswith(DAY):
            return self._publish_day(name, path)
        # The process that moved it may have died before it recorded that.
        if self.store.move(f"{STAGING}/{name}", path) or self.store.exists(path):
            return True
        self._demand_lake()
        return False

    def _publish_day(self, name: str, path: str) -> bool:
        directory, _, file = path.rpartition("/")
        staged, gone = f"{STAGING}/{name}", f"{STAGING}/{uuid4().hex}.gone"
        if not self.store.exists(path):
            if not self.store.exists(f"{staged}/{file}"):
                self._demand_lake()
                return False
            self.store.exchange(staged, directory)
            hit("after_exchange")
        # Not removed yet, since readers may have files open. Renamed, so that a process paused until now does not
        # exchange it back.
        self.store.move(staged, gone)
        return True

    def orphans(self) -> list[str]:
        """Return the names of staged files and directories that are older than any transaction.

        By the store's clock: with ours ahead, files that another process is about to commit could be removed.
        """
        mark = f"{uuid4().hex}.mark"
        self.store.write(f"{STAGING}/{mark}", b"")
        written_at = dict(self.store.entries(STAGING))
        self.discard(mark)
        return [name for name, at in written_at.items() if at < written_at[mark] - ORPHAN_S]

    def discard(self, name: str) -> None:
        """Remove staged files that were never committed; failed removals are repeated later."""
        with suppress(TransientError):
            self.store.remove(f"{STAGING}/{name}")

    def probe(self) -> None:
        """Check that a file can be written in the claimed lake."""
        self._demand_lake()
        self.store.open()

    def _merged(self, sources: Sequence[str], name: str, path: str) -> Staged:
        """Write the rows of `sources`, which have equal columns, to `path`, in parts."""
        rows = 0
        tables = _grouped(self._tables(sources))
        first = next(tables)
        with self.store.create(path) as file:
            with parquet.ParquetWriter(file, first.schema, compression="zstd", compression_level=_LEVEL) as writer:
                for table in chain([first], tables):
                    writer.write_table(table)
                    rows += table.num_rows
            size = file.tell()
        return Staged(name, rows, size, _columns(first.schema))

    def _tables(self, sources: Sequence[str]) -> Iterator[pa.Table]:
        for source in sources:
            with self.store.input(source) as file:
                read = parquet.ParquetFile(file)
                for group in range(read.num_row_groups):
                    yield read.read_row_group(group)

    def _demand_lake(self) -> None:
        """Check that the claimed lake is still there: an unmounted volume leaves an empty directory."""
        if self._owner is not None and self.store.read(_OWNER) != self._owner:
            raise TransientError("lake_missing", systemic=True)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows in tables of at least `_GROUP_ROWS`, except the last."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if len(waiting) >= _TABLES_MAX or rows >= _GROUP_ROWS:
            waiting = [pa.concat_tables(waiting).combine_chunks()]
        if rows >= _GROUP_ROWS:
            yield waiting.pop()
            rows = 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _name(staged: str) -> str:
    """Return the name of a merged file, distinct within its day."""
    return f"merged-{staged[:NAME_PART]}.parquet"


def _columns(schema: pa.Schema) -> str:
    """Return a string that is equal for files with equal columns."""
    return str(schema.metadata[b"drx.schema_fingerprint"].decode())
