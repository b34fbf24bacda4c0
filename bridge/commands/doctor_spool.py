"""The doctor's checks of the spool: it can accept events and deliver those it holds. Nothing is changed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bridge.kafka.accepted import from_entry
from bridge.runtime.findings import Finding, Grade, counted
from bridge.settings import SpoolSettings
from bridge.spool.availability import GROUP_MAX_BYTES
from bridge.spool.disk import is_locked
from bridge.spool.inspect import SegmentState, damaged_count, gets_first_key, survey
from bridge.spool.keys import CURRENT, NO_KEY, KeyRing
from bridge.spool.segment import SUFFIX, segment_bytes

_MEBIBYTE = 1024 * 1024
_PUT_BACK = "put the key back, or for a new spool write `spk_` and the base64 of 32 random bytes"
_NO_DIRECTORY = "set BRIDGE_SPOOL__DIR to a directory that exists or can be created"
_UNREAD = "chown it to the bridge's user; if that user owns it already, the disk fails: see the kernel's log"
_KEY_ADVICE = {
    "key_exposed": "chmod 600 it: a key that others can read, or its group can write, is not used",
    "key_malformed": "its first line must be `spk_` and the base64 of 32 bytes",
    "key_unreadable": "let the bridge's user read it",
}


def check_spool(spool: SpoolSettings) -> Iterator[Finding]:
    """Check the directory, its segments, the keys and the free space."""
    if not spool.enabled:
        text = "off: if Kafka does not acknowledge in time, the sender gets 503; the event is lost if it does not retry"
        yield Finding("spool", "warning", text, "set BRIDGE_SPOOL__ENABLED=true unless the sender is known to retry")
        return
    try:
        path = next(each for each in (spool.dir, *spool.dir.absolute().parents) if each.exists())
        is_directory = path.is_dir()
    except OSError as exc:
        yield Finding("spool", "failed", f"{spool.dir}: {exc.strerror}", _NO_DIRECTORY)
        return
    if not is_directory:
        yield Finding("spool", "failed", f"{spool.dir} cannot be a directory: {path} is a file", _NO_DIRECTORY)
        return
    if not _may_write(path):
        owner = path.stat().st_uid
        text = f"{path} cannot be written to by uid {os.geteuid()}; it belongs to uid {owner}"
        remedy = "chmod u+rwx it, or remount it if it is read-only" if owner == os.geteuid() else "chown it"
        if kept := len(list(spool.dir.glob(f"*{SUFFIX}"))):
            text += f"; {counted(kept, 'segment')} in it cannot be removed when delivered: SpoolUnavailable.md"
        yield Finding("spool", "failed", text, f"{remedy}, or set BRIDGE_SPOOL__DIR")
        return
    keys = KeyRing(spool.key_dir or spool.dir / "keys")
    keys.load()
    try:
        states = list(survey(spool.dir, keys.decrypting, read=from_entry))
    except OSError as exc:
        yield Finding("spool", "failed", f"{spool.dir}: {exc.strerror}", "run as the bridge's user")
        return
    yield _check_content(spool.dir, states, keys)
    yield _check_key(spool.dir, keys, spool_is_empty=not states)
    yield _check_room(spool, path, used=sum(state.size for state in states))


def _check_content(directory: Path, states: list[SegmentState], keys: KeyRing) -> Finding:
    waiting, locked = sum(state.waiting for state in states), sum(state.locked for state in states)
    unknown = sum(state.unknown for state in states)
    unread = [state.name for state in states if not state.is_read]
    damaged = sum(state.lost for state in states) + damaged_count(directory)
    held = is_locked(directory)
    if unread:
        return Finding("spool", "failed", f"{directory}: {unread[0]} cannot be read", _UNREAD)
    if locked:
        text = f"{directory}: {counted(locked, 'event')} cannot be decrypted: their key is missing"
        return Finding("spool", "failed", text, f"put it back into {keys.directory}; if lost: SpoolUnreadable.md")
    if unknown:
        text = f"{directory}: {counted(unknown, 'event')} written by another version of the bridge"
        return Finding("spool", "failed", text, "run that version until they are delivered; this one keeps them")
    if waiting and not held:
        text = f"{directory}: {counted(waiting, 'event')}, and no process has it open"
        return Finding("spool", "warning", text, "start the bridge with it, or run `drx-bridge spool drain`")
    if damaged:
        text = f"{directory}: {damaged} damaged records or segments"
        return Finding("spool", "warning", text, "see `drx-bridge spool verify`; files in `damaged` are kept")
    used = "in use" if held else "not in use" if directory.exists() else "created at the first start"
    return Finding("spool", "ok", f"{directory}: {used}, {counted(waiting, 'event') if waiting else 'empty'}")


def _check_key(directory: Path, keys: KeyRing, *, spool_is_empty: bool) -> Finding:
    inside = keys.directory.absolute().is_relative_to(directory.absolute())
    if keys.complaint is not None:
        name, code = keys.complaint
        verdict: Grade = "failed" if keys.current is None else "warning"
        return Finding("spool key", verdict, f"{keys.directory / name}: {code}", _KEY_ADVICE[code])
    makes = gets_first_key(directory, keys, spool_is_empty=spool_is_empty) and (inside or _may_write(keys.directory))
    if keys.current is None and not makes:
        text = f"{NO_KEY}: {keys.directory} has no `{CURRENT}`, so that the spool accepts nothing"
        return Finding("spool key", "failed", text, _PUT_BACK)
    text = "the first start creates one" if makes else f"{len(keys.decrypting)} in {keys.directory}"
    if inside:
        text += ", next to the data it encrypts, so a copy of the spool contains both"
        return Finding("spool key", "warning", text, "set BRIDGE_SPOOL__KEY_DIR to another directory, and back it up")
    return Finding("spool key", "ok", f"{text}; back it up: without it, spooled events are lost")


def _check_room(spool: SpoolSettings, path: Path, *, used: int) -> Finding:
    free, wanted = shutil.disk_usage(path).free, max(0, spool.capacity_bytes - used)
    text = f"{free // _MEBIBYTE:,} MiB free, {wanted // _MEBIBYTE:,} MiB more may be spooled"
    if free < GROUP_MAX_BYTES:
        return Finding("spool room", "failed", text, "make room; until then the spool accepts nothing")
    if wanted < min(GROUP_MAX_BYTES, segment_bytes(spool.capacity_bytes)):
        advice = "bring Kafka back, or raise BRIDGE_SPOOL__CAPACITY_BYTES: the spool is full"
        return Finding("spool room", "failed", text, advice)
    if free < wanted:
        advice = "make room, or lower BRIDGE_SPOOL__CAPACITY_BYTES to the free space"
        return Finding("spool room", "warning", text, advice)
    return Finding("spool room", "ok", text)


def _may_write(directory: Path) -> bool:
    return os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
