"""The keys of a spool: one file each in a directory; `current` seals, all open."""

import base64
import binascii
import os
import secrets
import stat
import tempfile
from pathlib import Path

from bridge.errors import CodedError
from bridge.runtime.failpoints import hit
from bridge.runtime.files import file_names, read_secret
from bridge.runtime.logging import log
from bridge.spool.disk import Disk
from bridge.spool.segment import KEY_BYTES, Key, key_of

CURRENT = "current"
PREFIX = "spk_"
# Why nothing can be sealed.
NO_KEY = "no_key"
FILE_MAX_BYTES = 4096  # a key takes 48; anything much longer is not one
# Others may not read a key; a group may, since that is how a pod shares a mounted secret.
FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


class KeyRing:
    """The keys that were read so far; each opens records until the process ends, also when its file is gone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory  # where the files are
        self.complaint: tuple[str, str] | None = None  # a file that cannot be used, and why
        self.current: Key | None = None  # the last good content of `current`; None when there was none yet
        self.opening: dict[bytes, Key] = {}  # all keys, by id
        self.names: dict[bytes, str] = {}  # names of their files, by id
        # Ids of the keys that had a file at the last reading. What is sealed with any other cannot be opened after a
        # restart.
        self.present: frozenset[bytes] = frozenset()

    def load(self) -> None:
        """Read the directory; what cannot be used is named in the log, and the last good keys stay in force."""
        complaint = None
        present = set()
        for name in _names(self.directory):
            try:
                key = _read(self.directory / name)
            except KeyFileError as exc:
                complaint = (name, exc.code)
                continue
            self.opening = {**self.opening, key.id: key}
            self.names[key.id] = name
            present.add(key.id)
            if name == CURRENT:
                self.current = key
        if complaint and complaint != self.complaint:
            log.error("worker.spool_key_refused", key=complaint[0], code=complaint[1])
        self.complaint = complaint
        self.present = frozenset(present)

    @property
    def sealing(self) -> Key | None:
        """The key that seals: `current`, while any file holds it."""
        return self.current if self.current is not None and self.current.id in self.present else None

    @property
    def is_empty(self) -> bool:
        """True when there is no file at all where the keys should be."""
        return not _names(self.directory)

    def make(self) -> None:
        """Make the first key, in a directory that is there; `OSError` if it cannot be kept there."""
        # Whole from the first moment, and never in the place of one that was put there meanwhile.
        handle, name = tempfile.mkstemp(prefix=f".{CURRENT}-", dir=self.directory)
        try:
            try:
                hit("before_key")
                os.write(handle, PREFIX.encode() + base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
            os.link(name, self.directory / CURRENT)
        finally:
            Path(name).unlink()
        for directory in (self.directory, self.directory.parent):
            Disk().sync_directory(directory)
        log.warning("worker.spool_key_made", hint="back the key up: without it, what is spooled cannot be read")


class KeyFileError(CodedError):
    """A file is no key; never leaves this module."""


def _names(directory: Path) -> list[str]:
    try:
        return file_names(directory)
    except OSError:
        return []


def _read(path: Path) -> Key:
    try:
        content, mode = read_secret(path, FILE_MAX_BYTES)
    except OSError:
        raise KeyFileError("key_unreadable") from None
    if mode & FORBIDDEN_MODE:
        raise KeyFileError("key_exposed")
    try:
        first = content.split(b"\n", 1)[0].strip()
        secret = base64.b64decode(first.removeprefix(PREFIX.encode()), validate=True)
    except binascii.Error:
        secret = b""
    if not first.startswith(PREFIX.encode()) or len(secret) != KEY_BYTES:
        raise KeyFileError("key_malformed")
    return key_of(secret)
