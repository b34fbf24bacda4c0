"""`drx-bridge hash-id`: print the hash of an id as it appears in the logs of ingress and consumers."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import orjson

from bridge.errors import ConfigError
from bridge.runtime.log_ids import read_id_keys
from bridge.runtime.logging import id_hash
from bridge.settings import load_settings


@click.command()
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@click.option(
    "--key-dir", type=click.Path(path_type=Path), help="Directory of the keys; default: BRIDGE_LOG__ID_KEY_DIR."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per key and ID.")
def hash_id(ids: tuple[str, ...], *, key_dir: Path | None, as_json: bool) -> int:
    """Print the hash of each ID, one a line, for each key of the directory.

    An ID is a delivery id, an event id, or a record key such as a prescription id. `-` reads IDs from standard input,
    one a line, which keeps them out of the shell's history. To find their lines: grep -F -f <(drx-bridge hash-id ID)
    LOG.
    """
    directory = key_dir or load_settings().log.id_key_dir
    if directory is None:
        msg = "no key is configured, so ids cannot be looked up; set BRIDGE_LOG__ID_KEY_DIR, or give --key-dir"
        raise ConfigError(msg)
    keys = read_id_keys(directory)
    for each in _read(ids):
        for key in keys:
            found = id_hash(each, key.key)
            click.echo(orjson.dumps({"key": key.name, "hash": found}) if as_json else found)
    return 0


def _read(ids: tuple[str, ...]) -> Iterator[str]:
    for each in ids:
        if each != "-":
            yield each
            continue
        yield from filter(None, (os.fsdecode(line).strip() for line in sys.stdin.buffer))  # as click reads arguments
