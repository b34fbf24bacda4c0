"""Build the consumer `archive`, an entry point of the group `drx_bridge.consumers`."""

import hmac
from importlib.resources import files
from pathlib import Path

from bridge.errors import ConfigError
from consumers.api import Batches, Consumer, Setup, Tables
from consumers.archive.columns import IdDigest
from consumers.archive.lake import Lake
from consumers.archive.options import NAME, S3, ArchiveOptions
from consumers.archive.stores import Bucket, LakeDirectory, Store
from consumers.archive.writer import ArchiveMetrics, Archiver
from consumers.options import read_options

MIGRATIONS = files("consumers.archive") / "migrations"
# Records read and not settled, some 3 KB each; batches in progress are additional.
WINDOW_BYTES = 64 * 1024 * 1024
PUBLISH_S, TIDY_S = 5.0, 600.0
# Seconds; a batch takes one on a normal disk.
_TIMEOUT_S = 120.0
_KEY_BYTES_MIN = 16
_WHAT = {
    "all": "every event, whole",
    "no_d": "every event without PHI class D",
    "hashed": "every event without PHI class D, ids as digests",
}
_RAW = "deliveries that are not events, whole"


def open_archive(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = read_options(ArchiveOptions, NAME, setup.options)
    written = [_WHAT[options.columns], *([_RAW] if options.raw else [])]
    store: Store = LakeDirectory(Path(options.root))
    if options.in_bucket:
        store = Bucket(options.root.removeprefix(S3), endpoint=options.endpoint)
    writer = Archiver(
        Lake(store, root=options.root),
        options,
        metrics=ArchiveMetrics(setup.registry, service=options.group),
        digest=read_digest(options.hash_key_file),
    )
    consumer = Consumer(
        NAME,
        options.all_topics,
        mode=Batches(
            records=options.batch_records,
            wait_s=options.batch_wait_s,
            window_records=2 * options.batch_records,
            window_bytes=WINDOW_BYTES,
        ),
        handler_timeout_s=_TIMEOUT_S,
        group=options.group,
        tables=Tables(migrations=MIGRATIONS, schema=options.tables_schema),
        prepare=writer.prepare,
        ping=writer.ping,
        lacks=writer.lacks,
        discloses=[f"{what}: Parquet files below {options.root}" for what in written],
    )
    consumer.handler(writer)
    consumer.job(every_s=PUBLISH_S)(writer.publish)
    consumer.job(every_s=TIDY_S)(writer.tidy)
    return consumer


def read_digest(file: Path | None) -> IdDigest | None:
    """Return a function for digests of ids, keyed with the secret in `file`."""
    if file is None:
        return None
    try:
        secret = file.read_bytes().strip()
    except OSError as exc:
        raise ConfigError(f"archive.hash_key_file: cannot read {file} ({exc.strerror})") from None
    if len(secret) < _KEY_BYTES_MIN:
        raise ConfigError(f"archive.hash_key_file: {file} holds fewer than {_KEY_BYTES_MIN} bytes")
    return lambda text: hmac.digest(secret, text.encode(), "sha256").hex()
