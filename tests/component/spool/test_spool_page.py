"""The page that describes the files is sufficient to read them."""

from pathlib import Path

from bridge.kafka.record import Record
from bridge.spool.payload import pack
from tests.component.spool.independent_reader import read, record_in
from tests.spooling import OTHER, PARTITION, an_entry, open_spool, write_key


async def test_a_reader_written_from_the_page_reads_what_waits(tmp_path: Path) -> None:
    keys = write_key(tmp_path / "keys", secret=b"a" * 32).parent
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        await kept.put(3, partition=OTHER)
    (keys / "current").rename(keys / "previous")
    write_key(keys, secret=b"b" * 32)
    async with open_spool(tmp_path) as kept:
        await kept.put(4, 5)
        kept.spool.acknowledge(PARTITION, 1)

    *found, summary = read(tmp_path, keys)

    expected = [an_entry(2), an_entry(3, partition=OTHER), an_entry(4), an_entry(5)]
    assert [(each["topic"], each["partition"]) for each in found] == [entry.partition for entry in expected]
    assert [(each["ordinal"], each["at_ms"]) for each in found] == [(entry.ordinal, entry.at_ms) for entry in expected]
    assert [bytes.fromhex(each["payload"]) for each in found] == [entry.payload for entry in expected]
    assert summary == {"missing": 0, "damaged_bytes": 0}


async def test_a_payload_of_the_bridge_is_a_record(tmp_path: Path) -> None:
    headers = [("ce_id", b"evt_1"), ("empty", b"")]
    with_value = Record(*PARTITION, b"rx_1", b"value", headers, 1_700_000_000_123)
    tombstone = with_value._replace(value=None)
    async with open_spool(tmp_path) as kept:
        await kept.spool.append([an_entry(1, payload=pack(*with_value[2:])), an_entry(2, payload=pack(*tombstone[2:]))])

    *found, _ = read(tmp_path, tmp_path / "keys")

    expected = {"timestamp": 1_700_000_000_123, "value": b"value", "key": b"rx_1", "headers": dict(headers)}
    assert [record_in(bytes.fromhex(each["payload"])) for each in found] == [expected, {**expected, "value": None}]
