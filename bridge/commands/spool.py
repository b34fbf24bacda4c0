"""`drx-bridge spool`: show, verify or drain a spool, and deliver records set aside."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table
from rich.text import Text

from bridge.errors import ConfigError
from bridge.event import instant
from bridge.kafka.accepted import from_entry
from bridge.runtime.findings import counted
from bridge.runtime.process import Group, combined
from bridge.runtime.screen import print_table
from bridge.settings import load_settings
from bridge.spool.disk import Disk, is_locked
from bridge.spool.inspect import SegmentState, damaged_count, gets_first_key, survey
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.segment import Entry, Key, SpoolPartition
from bridge.spool.set_aside import names_of, read_aside

# Commands that change something, imported only when they run.
_ELSEWHERE = {
    "drain": ("bridge.commands.spool_drain:drain", "Deliver the records of a spool that no process uses any more."),
    "aside": ("bridge.commands.spool_aside:aside", "Show or deliver records that Kafka refused permanently."),
}


path_options = combined(
    click.option("--dir", "directory", type=click.Path(path_type=Path), help="Default: BRIDGE_SPOOL__DIR."),
    click.option(
        "--key-dir",
        type=click.Path(path_type=Path),
        help="Default: BRIDGE_SPOOL__KEY_DIR, or `keys` in the spool's directory.",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output."),
)


def paths_of(directory: Path | None, key_dir: Path | None) -> tuple[Path, Path]:
    """Return the directories of spool and keys, from options or settings."""
    if directory is None or key_dir is None:
        settings = load_settings().spool
        directory = directory or settings.dir
        key_dir = key_dir or settings.key_dir
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory; give that of the spool as --dir")
    return directory, key_dir or directory / "keys"


@click.group(cls=Group, modules=_ELSEWHERE)
def spool() -> None:
    """Inspect a spool, drain one that no process uses, or deliver records set aside."""


@spool.command()
@path_options
def status(*, directory: Path | None, key_dir: Path | None, as_json: bool) -> int:
    """Show the content of the spool; works while a process has it open."""
    directory, key_dir = paths_of(directory, key_dir)
    document = _document(directory, *_read(directory, key_dir))
    if as_json:
        click.echo(orjson.dumps(document))
    else:
        _print(document)
    return 0


@spool.command()
@path_options
def verify(*, directory: Path | None, key_dir: Path | None, as_json: bool) -> int:
    """Check every record by decrypting it; exit 1 if one is damaged or its key is missing."""
    directory, key_dir = paths_of(directory, key_dir)
    states, _ = _read(directory, key_dir)
    faulty = [state for state in states if not state.is_sound]
    if as_json:
        counts = ("is_read", "lost", "locked", "unknown")
        findings = [
            {"segment": state.name, **{name: getattr(state, name) for name in counts}}
            | {"damage": [{"from": start, "to": end} for start, end in sorted(state.damage)]}
            for state in faulty
        ]
        click.echo(orjson.dumps({"ok": not faulty, "segments": len(states), "findings": findings}))
    else:
        for state in faulty:
            click.echo(_sentence(state), err=True)
        if not faulty:
            events = counted(sum(state.waiting for state in states), "event")
            click.echo(f"{counted(len(states), 'segment')}, {events}: all sound", err=True)
    return int(bool(faulty))


def _read(directory: Path, key_dir: Path) -> tuple[list[SegmentState], KeyRing]:
    keys = KeyRing(key_dir)
    keys.load()
    try:
        return list(survey(directory, keys.decrypting, read=from_entry)), keys
    except OSError:
        raise ConfigError(f"{directory}: cannot be read; run as its owner") from None


def _document(directory: Path, states: list[SegmentState], keys: KeyRing) -> dict[str, Any]:
    disk = Disk()
    can_seal = keys.current is not None or gets_first_key(directory, keys, spool_is_empty=not states)
    partitions, encrypted, accepted = Counter[SpoolPartition](), Counter[bytes](), defaultdict[bytes, list[str]](list)
    for state in states:
        partitions += state.partitions
        encrypted += state.keys
        for key in state.keys:
            accepted[key] += map(_instant, state.accepted_ms)
    set_aside = described(disk, directory, keys.decrypting)
    encrypted.update(bytes.fromhex(kept["key"]) for kept in set_aside if kept["key"])
    for kept in set_aside:
        accepted[bytes.fromhex(kept["key"])].append(kept["accepted_at"])
    oldest = min((state.oldest_ms for state in states if state.oldest_ms), default=0)
    return {
        "directory": str(directory),
        "held": is_locked(directory),
        "code": "" if can_seal else NO_KEY,
        "segments": len(states),
        "bytes": sum(state.size for state in states),
        "events": sum(state.waiting for state in states),
        **{name: sum(getattr(state, name) for state in states) for name in ("locked", "unknown", "lost")},
        "unread": sum(not state.is_read for state in states),
        "damaged": damaged_count(directory),
        "set_aside": set_aside,
        "oldest": _instant(oldest) if oldest else None,
        "lanes": [
            {"topic": topic, "partition": number, "events": events}
            for (topic, number), events in sorted(partitions.items())
        ],
        "keys": [
            {
                "id": key.hex(),
                "file": keys.names.get(key),
                "is_current": keys.current is not None and key == keys.current.id,
                "records": encrypted[key],
                "first": min(accepted[key], default=None),
                "last": max(accepted[key], default=None),
            }
            for key in sorted({*encrypted, *keys.decrypting})
        ],
    }


def described(disk: Disk, directory: Path, keys: Mapping[bytes, Key]) -> list[dict[str, Any]]:
    """Return a document per record set aside; what is encrypted is null if its key is missing or its file damaged."""
    documents = []
    for name in names_of(disk, directory):
        with suppress(OSError):  # put back in the meantime
            kept = read_aside(disk, directory, name, keys)
            entry = kept.entry if isinstance(kept.entry, Entry) else None
            documents.append(
                {
                    "name": name,
                    "code": kept.code,
                    "key": kept.key_id.hex(),
                    "topic": entry and entry.partition[0],
                    "partition": entry and entry.partition[1],
                    "accepted_at": _instant(kept.at_ms) if kept.key_id else None,
                    "bytes": entry and len(entry.payload),
                }
            )
    return documents


def _instant(at_ms: int) -> str:
    return instant(datetime.fromtimestamp(at_ms / 1000, UTC))


def _sentence(state: SegmentState) -> str:
    if not state.is_read:
        return f"{state.name}: cannot be read"
    parts = [f"{counted(state.lost, 'record')} damaged or gone"] if state.lost else []
    parts += [f"{counted(state.locked, 'record')} whose key is missing"] if state.locked else []
    parts += [f"{counted(state.unknown, 'record')} written by another version of the bridge"] if state.unknown else []
    return f"{state.name}: {', '.join(parts)}"


def _print(document: dict[str, Any]) -> None:
    shown = Table(show_header=False, box=None)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    rows = [("directory", document["directory"]), ("open in a process", "yes" if document["held"] else "no")]
    rows += [("accepts nothing", document["code"])] if document["code"] else []
    rows += [
        (name, f"{document[name]:,}")
        for name in ("events", "bytes", "segments", "locked", "unknown", "lost", "unread", "damaged")
    ]
    rows += [("oldest", document["oldest"] or "none")]
    rows += [(f"{each['topic']}/{each['partition']}", f"{each['events']:,}") for each in document["lanes"]]
    rows += [(f"set aside {kept['name']}", f"{kept['topic']}/{kept['partition']}") for kept in document["set_aside"]]
    for key in document["keys"]:
        name = "current" if key["is_current"] else key["file"] or "missing"
        period = f", accepted {key['first']} to {key['last']}" if key["first"] else ""
        rows.append((f"key {key['id']}", f"{counted(key['records'], 'record')}, {name}{period}"))
    for name, value in rows:
        shown.add_row(name, Text(value))
    print_table(shown)
