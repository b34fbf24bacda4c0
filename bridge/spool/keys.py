"""Keys of a spool, one file each in a directory; `current` encrypts, all decrypt."""

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
# Code if no key can encrypt.
NO_KEY = "no_key"
FILE_MAX_BYTES = 4096  # bytes; a key takes 48
# Permissions that a key must not have: others may not read it; a group may, as pods share mounted secrets so.
FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


class KeyRing:
    """The keys read up to now; each decrypts records until the process ends, even if its file is removed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory  # directory of the files
        self.complaint: tuple[str, str] | None = None  # an invalid file, and why
        self.current: Key | None = None  # the last valid key of `current`; None if there was none yet
        self.decrypting: dict[bytes, Key] = {}  # all keys, by id
        self.names: dict[bytes, str] = {}  # names of their files, by id
        # Ids of the keys that had a file at the last reading. After a restart, only these can decrypt.
        self.present: frozenset[bytes] = frozenset()

    def load(self) -> None:
        """Read the directory; invalid files are logged, and the last valid keys stay in use."""
        complaint = None
        present = set()
        for name in _names(self.directory):
            try:
                key = _read(self.directory / name)
            except KeyFileError as exc:
                complaint = (name, exc.code)
                continue
            self.decrypting = {**self.decrypting, key.id: key}
            self.names[key.id] = name
            present.add(key.id)
            if name == CURRENT:
                self.current = key
        if complaint and complaint != self.complaint:
            log.error("worker.spool_key_refused", key=complaint[0], code=complaint[1])
        self.complaint = complaint
        self.present = frozenset(present)

    @property
    def encrypting(self) -> Key | None:
        """The key that encrypts: `current`, while any file has it."""
        return self.current if self.current is not None and self.current.id in self.present else None

    @property
    def is_empty(self) -> bool:
        """True if the directory of keys has no file."""
        return not _names(self.directory)

    def make(self) -> None:
        """Create the first key in an existing directory; `OSError` if it cannot be written."""
        # Written atomically, and never over a key that was added meanwhile.
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
        log.warning("worker.spool_key_made", hint="back up the key: without it, spooled events cannot be decrypted")


class KeyFileError(CodedError):
    """A file is not a key; caught in this module."""


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
