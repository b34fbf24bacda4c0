"""Scenes of `archive`: groups with a lake each, which must have every event of the log once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from uuid import uuid4

from pyarrow import dataset  # noqa: TID251 - reads what was written

from tests.faults.scene import PARTITIONS, Ground, Scene, Subject, scene_of
from tests.integration.service_process import until
from tests.topic_filler import Lives

NAME = "archive"


@contextmanager
def archiving(ground: Ground, lives: Lives, *, partitions: int = PARTITIONS) -> Iterator[tuple[Scene, Path]]:
    schema = f"a{uuid4().hex[:12]}"
    topic, lake = f"faults.archive.{schema}", ground.directory / f"lake-{schema}"
    options = {"ROOT": str(lake), "SCHEMA": schema, "TOPICS": topic, "WAIT_S": "0.2", "BATCH_RECORDS": "50"}
    subject = Subject(NAME, f"{NAME}.{schema}", topic, options, partial(check, lake, schema))
    with scene_of(ground, subject, lives, partitions=partitions) as scene:
        yield scene, lake


@contextmanager
def without_staging(lake: Path) -> Iterator[None]:
    """Replace the staging directory by a file, like a lost volume."""
    staging = lake / "staging"
    until(lambda: not list(staging.iterdir()), what="an empty directory")
    staging.rename(lake / "gone")
    staging.touch()
    yield
    staging.unlink()
    (lake / "gone").rename(staging)


def check(lake: Path, schema: str, scene: Scene) -> None:
    """Check that every offset of the log is one row in one visible file, and no record is parked."""
    assert scene.parked() == 0
    unpublished = f'select count(*) from "{schema}".file where published_at is null'  # noqa: S608 - ours
    until(lambda: scene.ask(unpublished) == [(0,)], what="every committed file to be published")
    table = dataset.dataset(lake / "events", format="parquet", partitioning=None).to_table(
        columns=["_partition", "_offset", "event_id"]
    )
    rows = Counter(zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True))
    assert {each for each, times in rows.items() if times > 1} == set()
    assert rows.keys() == {(part, offset) for part, end in scene.progress().items() for offset in range(end)}
    assert table.num_rows == scene.written
    assert set(table["event_id"].to_pylist()) == set(chain.from_iterable(scene.lives.ids().values()))
    named = scene.ask(f'select path, row_count from "{schema}".file')  # noqa: S608 - ours
    assert {path for path, _ in named} == {str(path.relative_to(lake)) for path in (lake / "events").rglob("*.parquet")}
    assert sum(count for _, count in named) == scene.written
