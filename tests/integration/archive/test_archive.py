import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa  # noqa: TID251 - reads what was written
import pytest
from pyarrow import dataset, fs, parquet  # noqa: TID251 - as above

from bridge.contract.events import EVENT_MODELS
from bridge.dev.ports import HOST, free_port
from bridge.dev.services import get
from bridge.errors import ConfigError, TransientError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from consumers.api import Context, Placed
from consumers.archive.columns import IDS, schema_of
from consumers.archive.consumer import open_archive
from consumers.archive.stores import Bucket
from consumers.archive.writer import Archiver
from consumers.options import TOPICS
from consumers.testing import Running, an_event, running
from tests.incomplete import sample_events
from tests.integration.service_process import until

MAPS = {field.name for field in schema_of() if pa.types.is_map(field.type)}
CURRENT, MISSING = "drxbridge_archive_current_timestamp_seconds", "drxbridge_archive_missing_files_total"
PAGE = (Path(__file__).parents[3] / "consumers" / "archive" / "README.md").read_text()
WHEN = datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)


def pairs(value: dict[str, str] | None) -> list[tuple[str, str]] | None:
    return None if value is None else list(value.items())


def options(lake: Path, **more: str) -> dict[str, str]:
    return {"root": str(lake), "wait_s": "0.2", **more}


def shown(path: Path, root: Path) -> str:
    return re.sub(r"-[0-9a-f]{12}(?=\.parquet$)", "-…", str(path.relative_to(root)))


def visible(root: Path) -> list[Path]:
    return sorted((root / "events").rglob("*.parquet"))


async def handle(archive: Running, *events: Event) -> None:
    """Handle them as a batch of its own, all at the same offset."""
    context = Context("archive", TOPICS[0], 0, 7, "a:1", 1)
    async with archive._database.transaction() as connection:
        await archive._consumer.handle([Placed(event, context) for event in events], connection)  # type: ignore[misc, arg-type]


async def prepare(archive: Running) -> None:
    async with archive._database.transaction() as connection:
        await archive._consumer.prepare(connection)  # type: ignore[misc]  # it has one


async def lacks(archive: Running) -> set[str]:
    total, *files = await archive._consumer.lacks(archive._database)  # type: ignore[misc]  # as above
    assert "`CONSUMER_ARCHIVE__ROOT=EMPTY CONSUMER_ARCHIVE__SCHEMA=archive_2 drx-consumer init archive --from" in total
    return {total.partition(":")[0], *files}


async def publish(archive: Running) -> None:
    (job, _) = archive._consumer.jobs
    async with archive._database.transaction() as connection:
        await job.run(connection)


async def published(archive: Running, root: Path, rows: int) -> pa.Table:
    await publish(archive)
    table = read(root)
    assert table.num_rows == rows
    return table


def by_duckdb(query: str) -> list[Any]:
    found = duckdb.sql(query)
    assert found is not None
    return found.fetchall()


def read(root: Path) -> pa.Table:
    if not visible(root):
        return schema_of().empty_table()
    return dataset.dataset(root / "events", schema=schema_of(), format="parquet", partitioning=None).to_table()


async def test_every_sample_is_a_row_with_all_that_it_says(tmp_path: Path) -> None:
    events = list(sample_events())
    assert {event.type for event in events} == set(EVENT_MODELS)
    async with running(open_archive, options=options(tmp_path)) as archive:
        await archive.feed(*events)
        table = await published(archive, tmp_path, len(events))

    rows = {row["event_id"]: row for row in table.to_pylist()}
    assert len(rows) == len(events)
    for event in events:
        said = {name: value for name, value in rows[event.id].items() if not name.startswith("_")}
        wanted: dict[str, Any] = dict.fromkeys(said) | dict(event.value)
        assert said == {name: pairs(value) if name in MAPS else value for name, value in wanted.items()}


async def test_readers_of_the_page_find_what_is_there(tmp_path: Path) -> None:
    page = PAGE.replace("/srv/drx-lake", str(tmp_path))
    sql, code = (page.partition(f"```{language}\n")[2].partition("```")[0] for language in ("sql", "python"))
    events = [an_event("fill.status_changed", at=WHEN), an_event("prescription.sent", at=WHEN)]
    async with running(open_archive, options=options(tmp_path)) as archive:
        await archive.feed(*events)
        await publish(archive)

    assert sorted(by_duckdb(sql)) == [("fill.status_changed", 1), ("prescription.sent", 1)]
    found: dict[str, Any] = {}
    exec(code.replace("lake.to_table(", "table = lake.to_table("), found)  # noqa: S102 - the page's own
    assert found["table"].num_rows == 1


async def test_a_file_is_of_one_topic_and_day_of_receipt(tmp_path: Path) -> None:
    late, early = an_event("prescription.sent", at=WHEN + timedelta(days=1)), an_event("prescription.sent", at=WHEN)
    async with running(open_archive, options=options(tmp_path)) as archive:
        await archive.feed(late, early)
        await published(archive, tmp_path, 2)

    assert [shown(path, tmp_path / "events") for path in visible(tmp_path)] == [
        "topic=drx.prescriptions.v1/received_date=2026-09-14/p00-000000000001-000000000001-….parquet",
        "topic=drx.prescriptions.v1/received_date=2026-09-15/p00-000000000000-000000000000-….parquet",
    ]


async def test_offsets_that_come_again_have_files_of_their_own(tmp_path: Path) -> None:
    """As after a topic was made anew, or offsets were moved."""
    async with running(open_archive, options=options(tmp_path)) as archive:
        for _ in range(2):
            await handle(archive, an_event("prescription.sent"))
        await published(archive, tmp_path, 2)


async def test_without_class_d_nothing_identifies_a_person(tmp_path: Path) -> None:
    events = list(sample_events())
    async with running(open_archive, options=options(tmp_path, columns="no_d")) as archive:
        await archive.feed(*events)
        await published(archive, tmp_path, len(events))

    (path, *_) = visible(tmp_path)
    names = set(parquet.read_schema(path).names)
    assert "patient" not in names
    assert {"medication", "pharmacy"} <= names
    said = repr(dataset.dataset(tmp_path / "events", format="parquet", partitioning=None).to_table().to_pylist())
    patients = [event.value["patient"] for event in events if event.value.get("patient")]
    assert len(patients) > 5
    for patient in patients:
        assert isinstance(patient, dict)
        assert patient["last_name"] not in said


async def test_digests_stand_in_place_of_ids_and_rows_of_a_prescription_still_join(tmp_path: Path) -> None:
    secret, lake = tmp_path / "secret", tmp_path / "lake"
    secret.write_text("a secret of 32 bytes and more, yes")
    events = list(sample_events())
    async with running(open_archive, options=options(lake, columns="hashed", hash_key_file=str(secret))) as archive:
        await archive.feed(*events)
        table = await published(archive, lake, len(events))

    rows = {row["event_id"]: row for row in table.to_pylist()}
    shown = {str(value) for row in rows.values() for value in row.values()}
    for event in events:
        row = rows[event.id]
        assert len(row["_key"]) == 64
        assert row["patient"] is None
        for name in IDS & set(event.value):
            assert (row[name] is None) == (event.value[name] is None)
            assert event.value[name] is None or str(event.value[name]) not in shown
        assert event.value["prescription_id"] is None or row["prescription_id"] == row["_key"]


async def test_deliveries_that_are_no_events_have_a_table_of_their_own(tmp_path: Path) -> None:
    body = b'{"id": "evt_1", \xff'
    value = {"webhook_id": "evt_1", "source": "drx", "received_at": WHEN, "reason": "malformed_json", "detail": ""}
    value |= {"field": "", "headers": {"user-agent": "drx"}, "body": body}
    broken = Event("evt_1", UNRECOGNIZED_TYPE, "drx", "evt_1", WHEN, WHEN, value)
    async with running(open_archive, options=options(tmp_path, raw="true")) as archive:
        assert archive._consumer.topics == (*TOPICS, UNRECOGNIZED_TOPIC)
        handler = archive._consumer.handle
        context = Context("archive", UNRECOGNIZED_TOPIC, 3, 7, "a:1", 1)
        # An event beside it, as somebody else's record in the topic of events is.
        sent = Placed(an_event("prescription.sent", at=WHEN), replace(context, offset=8))
        async with archive._database.transaction() as connection:
            await handler([Placed(broken, context), sent], connection)  # type: ignore[misc, arg-type]
        assert (await published(archive, tmp_path, 1)).column("event_id").to_pylist() == [sent.event.id]

    (path,) = (tmp_path / "unrecognized").rglob("*.parquet")
    assert shown(path, tmp_path) == "unrecognized/received_date=2026-09-14/p03-000000000007-000000000007-….parquet"
    (row,) = parquet.read_table(path, partitioning=None).to_pylist()
    assert row["body"] == body
    assert (row["headers"], row["_offset"]) == ([("user-agent", "drx")], 7)


async def test_a_type_that_nobody_knows_is_parked_alone(tmp_path: Path) -> None:
    """As somebody else's record of one of our schemas may have it."""
    sent = an_event("prescription.sent", key="rx_1", id="evt_1")
    foreign = sent._replace(id="evt_2", key="rx_2", type="prescription.lost", value={**sent.value, "event_id": "evt_2"})
    async with running(open_archive, options=options(tmp_path)) as archive:
        with pytest.raises(UnknownRecordError):
            await handle(archive, sent, foreign)


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is parked, and what waited is not taken apart into files of one row."""
    fsync, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise OSError(errno.ENOSPC, "full")
        fsync(handle)

    async with running(open_archive, options=options(tmp_path)) as archive:
        monkeypatch.setattr("os.fsync", full)
        await archive.feed(*(an_event("prescription.sent", key=f"rx_{number}") for number in range(20)))
        table = await published(archive, tmp_path, 20)
        assert await archive.parked() == []

    assert (table.num_rows, len(visible(tmp_path))) == (20, 1)
    assert list((tmp_path / "staging").iterdir()) == []


async def test_what_is_staged_and_never_committed_goes_after_an_hour(tmp_path: Path) -> None:
    """What is committed and not published yet stays, however old it is."""
    async with running(open_archive, options=options(tmp_path)) as archive:
        await archive.feed(an_event("prescription.sent"))
        (committed,) = (tmp_path / "staging").iterdir()
        for name in ("old.parquet", "old.part", "new.parquet"):
            (tmp_path / "staging" / name).write_bytes(b"")
        (tmp_path / "staging/old.day").mkdir()
        (tmp_path / "staging/old.day/merged.parquet").touch()
        for path in (committed, *(tmp_path / "staging").glob("old.*")):
            os.utime(path, (1, 1))
        (_, tidy) = archive._consumer.jobs
        async with archive._database.transaction() as connection:
            await tidy.run(connection)

        assert sorted((tmp_path / "staging").iterdir()) == sorted([committed, tmp_path / "staging/new.parquet"])
        await published(archive, tmp_path, 1)


async def test_a_committed_file_that_is_gone_is_counted_and_holds_up_no_other(tmp_path: Path) -> None:
    async with running(open_archive, options=options(tmp_path)) as archive:
        await archive.feed(an_event("prescription.sent"))
        (staged,) = (tmp_path / "staging").iterdir()
        staged.unlink()
        await archive.feed(an_event("prescription.sent"))
        before = archive.registry.get_sample_value(CURRENT, {"service": "archive"})
        await published(archive, tmp_path, 1)

        assert archive.registry.get_sample_value(MISSING, {"service": "archive"}) == 1
        assert archive.registry.get_sample_value(CURRENT, {"service": "archive"}) == before
        assert await lacks(archive) == {"1 committed file with 1 event", f"staging/{staged.name}, 1 event"}
        (seen,) = visible(tmp_path)
        seen.unlink()
        files = {f"staging/{staged.name}, 1 event", f"{seen.relative_to(tmp_path)}, 1 event"}
        assert await lacks(archive) == {"2 committed files with 2 events", *files}


async def test_the_role_of_consumers_may_do_what_the_archive_does(tmp_path: Path) -> None:
    async with running(open_archive, options=options(tmp_path)) as archive:
        consumer = archive._consumer
        sent = an_event("prescription.sent")
        async with archive._database.transaction() as connection:
            await connection.execute("set local role drx_consumer")
            await consumer.prepare(connection)  # type: ignore[misc]  # it has one
            await consumer.handle([Placed(sent, Context("archive", TOPICS[0], 0, 0, "a:1", 1))], connection)  # type: ignore[misc, arg-type]
            for job in consumer.jobs:
                await job.run(connection)

        assert len(visible(tmp_path)) == 1
        async with archive._database.transaction() as connection:
            await connection.execute("set local role drx_consumer")
            may = "select privilege from unnest(array['insert', 'update', 'delete', 'truncate']) privilege"
            granted = await connection.fetch(f"{may} where has_table_privilege('archive.file', privilege)")
        assert [privilege for (privilege,) in granted] == ["insert", "update", "delete"]


async def test_a_lake_belongs_to_the_tables_that_it_was_begun_with(tmp_path: Path) -> None:
    """Another schema, or the same one after its database was emptied, would write every event again."""
    async with running(open_archive, options=options(tmp_path)) as archive:
        await archive.feed(an_event("prescription.sent"))
        await publish(archive)

    with pytest.raises(ConfigError, match="the lake of another database or schema"):
        async with running(open_archive, options=options(tmp_path)):
            pass
    (tmp_path / "owner").unlink()
    with pytest.raises(ConfigError, match="has files of no archive"):
        async with running(open_archive, options=options(tmp_path, schema="next")):
            pass
    shutil.rmtree(tmp_path / "events")
    async with running(open_archive, options=options(tmp_path, schema="next")):
        pass


async def test_an_archive_that_has_files_does_not_begin_again_in_an_empty_place(tmp_path: Path) -> None:
    """As a process does whose volume is not mounted, or is no other's volume; the files that are missing come back."""
    lake, aside = tmp_path / "lake", tmp_path / "aside"
    async with running(open_archive, options=options(lake)) as archive:
        await prepare(archive)
        await archive.feed(an_event("prescription.sent"))
        lake.rename(aside)
        with pytest.raises(ConfigError, match="is empty, and this archive has files in another root"):
            await prepare(archive)
        shutil.rmtree(lake)
        aside.rename(lake)
        await prepare(archive)
        await published(archive, lake, 1)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "moto.server", "--host", HOST, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: get(port, "/moto-api/")[0] == 200, what="a server of S3")
        yield f"{HOST}:{port}"
    finally:
        server.kill()
        server.wait()


def be_a_user_of_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-test")


async def test_a_bucket_is_a_lake_as_a_directory_is(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    be_a_user_of_s3(monkeypatch)
    there = fs.S3FileSystem(endpoint_override=s3, scheme="http", region="us-east-1", allow_bucket_creation=True)
    there.create_dir("lake")
    given = {"root": "s3://lake/of/drx", "endpoint": f"http://{s3}", "allow_http": "true"}
    events = [an_event("prescription.sent", key=f"rx_{number}") for number in range(50)]
    async with running(open_archive, options={**given, "wait_s": "0.2", "batch_records": "20"}) as archive:
        await archive.feed(*events, *events[:10])
        staged = there.get_file_info(fs.FileSelector("lake/of/drx/staging"))
        await publish(archive)
        await publish(archive)  # as after a crash between the copy and the word of it
        assert await archive.parked() == []

    read_back = dataset.dataset("lake/of/drx/events", filesystem=there, format="parquet", partitioning=None).to_table()
    assert sorted(read_back["event_id"].to_pylist()) == sorted(event.id for event in events)
    assert len([each for each in staged if each.type == fs.FileType.File]) >= 3
    left = there.get_file_info(fs.FileSelector("lake/of/drx/staging", allow_not_found=True))
    assert [each for each in left if each.type == fs.FileType.File] == []
    with pytest.raises(ConfigError, match="the lake of another"):
        async with running(open_archive, options=given):
            pass


async def test_a_bucket_that_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    be_a_user_of_s3(monkeypatch)
    bucket = Bucket("lake", endpoint=f"http://{HOST}:{free_port()}")

    with pytest.raises(TransientError, match="lake_") as raised:
        bucket.write("events/x.parquet", b"health information")
    assert raised.value.systemic
    assert "health" not in str(raised.value)


def test_every_column_that_names_something_of_a_patient_becomes_a_digest() -> None:
    named = {
        field.name
        for field in schema_of()
        if field.metadata == {b"phi": b"L"}
        and pa.types.is_string(field.type)
        and field.name.endswith(("_id", "_number", "_key", "superseded_by"))
    }

    assert named - {"lot_number"} == IDS - {"correlation_id"}


def test_a_column_has_the_stricter_of_two_classes() -> None:
    """`reason` is a word of a closed list in one record, and text about a patient in another."""
    assert schema_of().field("reason").metadata == {b"phi": b"L"}
    assert {field.name for field in schema_of() if field.metadata == {b"phi": b"D"}} == {
        "patient",
        "extensions",
        "tracking_number",
    }


async def test_old_and_new_files_read_together(tmp_path: Path) -> None:
    """A new field of the contract is a new nullable column."""
    events = [an_event("prescription.sent") for _ in range(2)]
    async with running(open_archive, options=options(tmp_path)) as archive:
        writer: Archiver = archive._consumer.prepare.__self__  # type: ignore[union-attr]
        now = writer._schema
        writer._schema = now.remove(now.get_field_index("delivery_mode"))
        await archive.feed(events[0])
        writer._schema = now
        await archive.feed(events[1])
        await published(archive, tmp_path, 2)

    found = by_duckdb(
        f"select delivery_mode is null, count(*) from read_parquet('{tmp_path}/events/**/*.parquet',"  # noqa: S608 - a test's path
        " union_by_name = true) group by 1 order by 1"
    )
    assert found == [(False, 1), (True, 1)]
