"""The files of the lake: each is staged, and gets its name where readers look once it is committed.

    <root>/owner                                                                   id of the archive that writes here
    <root>/staging/<uuid>.parquet                                                  nobody reads it
    <root>/events/topic=…/received_date=YYYY-MM-DD/pPP-FIRST-LAST.parquet          never changed or removed
    <root>/unrecognized/received_date=YYYY-MM-DD/pPP-FIRST-LAST.parquet            the same, of another schema

A file is written whole, then the transaction that settles its events notes it, and only then it is moved to its name.
What is staged and was never noted, by a process that died or had lost its partition, is removed after an hour. Readers
so need no list of files: whatever has a name below `events/` counts, and each event is in one file.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

import pyarrow as pa  # noqa: TID251 - this is a door
from pyarrow import parquet  # noqa: TID251 - as above

from bridge.errors import ConfigError, TransientError
from consumers.archive.stores import STAGING, Store

EVENTS, UNRECOGNIZED = "events", "unrecognized"
# Between the write of a file and the end of its transaction lie seconds.
ORPHAN_S = 3600.0
_OWNER = "owner"
# Of zstd; 5,000 events take 40 ms.
_LEVEL = 3


class Staged(NamedTuple):
    """A file that is whole, and counts for nothing yet."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Lake:
    """Writes and names files; every call may block, and raises `TransientError`, systemic, while the store is away."""

    def __init__(self, store: Store, *, root: str) -> None:
        """Write to `store`; `root` is its name for people."""
        self._store = store
        self._root = root
        self._owner: bytes | None = None

    def claim(self, archive: str, *, begun: bool) -> None:
        """See that the lake is writable, and belongs to this archive and to no other, for ever.

        Another one, or the same with an emptied database, would write again what is there. An archive that has files in
        one place would leave a hole there if it went on in another, such as a volume that is not mounted.

        Args:
            archive: Id that is kept beside the table of files.
            begun: Whether it has written files.

        Raises:
            ConfigError: It cannot be used, or is another one's.
        """
        self._store.open()
        owner = self._store.read(_OWNER)
        if owner is None:
            if self._store.any_below(EVENTS) or self._store.any_below(UNRECOGNIZED):
                msg = f"archive.root: {self._root} holds files and no owner; give an empty place"
                raise ConfigError(msg)
            if begun:
                msg = (
                    f"archive.root: {self._root} is empty, and this archive has files elsewhere; mount or name that"
                    " place, or begin anew with another schema"
                )
                raise ConfigError(msg)
            self._store.write(_OWNER, archive.encode())
            owner = self._store.read(_OWNER)
        if owner != archive.encode():
            msg = f"archive.root: {self._root} is the lake of another database or schema; give an empty place"
            raise ConfigError(msg)
        self._owner = owner

    def stage(self, table: pa.Table) -> Staged:
        """Write a file.

        Raises:
            TransientError: `lake_missing`: another place has the name of the lake that was claimed.
        """
        self._demand_lake()
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd", compression_level=_LEVEL)
        content = sink.getvalue().to_pybytes()
        name = f"{uuid4().hex}.parquet"
        self._store.write(f"{STAGING}/{name}", content)
        return Staged(name, table.num_rows, len(content), hashlib.sha256(content).hexdigest())

    def publish(self, name: str, path: str) -> bool:
        """Give a committed file its name; False if it is neither staged nor published.

        Raises:
            TransientError: As `stage`.
        """
        # The process that moved it may have died before it could say so.
        if self._store.move(f"{STAGING}/{name}", path) or self._store.exists(path):
            return True
        self._demand_lake()
        return False

    def orphans(self) -> list[str]:
        """Return the names of staged files that are older than any transaction.

        By the clock of the store, since ours may be ahead of it: what another process is about to commit is no orphan.
        """
        mark = f"{uuid4().hex}.mark"
        self._store.write(f"{STAGING}/{mark}", b"")
        written_at = dict(self._store.files(STAGING))
        self.discard(mark)
        return [name for name, at in written_at.items() if at < written_at[mark] - ORPHAN_S]

    def discard(self, name: str) -> None:
        """Remove what was staged in vain; what cannot be removed now is found again."""
        with suppress(TransientError):
            self._store.remove(f"{STAGING}/{name}")

    def probe(self) -> None:
        """See that a file can be written, in the lake that was claimed.

        Raises:
            ConfigError: It cannot, and waiting does not heal it by itself.
            TransientError: As `stage`.
        """
        self._demand_lake()
        self._store.open()

    def _demand_lake(self) -> None:
        """See that the lake that was claimed is still there: a volume that is unmounted leaves an empty directory."""
        if self._owner is not None and self._store.read(_OWNER) != self._owner:
            raise TransientError("lake_missing", systemic=True)
