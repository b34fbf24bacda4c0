"""What others registered outlives the process, and a later release of our own schemas."""

import json
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.errors import ConfigError
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from bridge.registry.store_open import open_store
from tests.component.registry.registry_calls import LOCKED, ORDER, OURS, RENUMBERED, THEIRS, Client, get, post, refused


async def test_what_was_registered_is_there_after_a_restart(registry: Client, file: Path) -> None:
    """Nothing is closed or flushed in between, as after a kill."""
    before = await post(registry, f"{THEIRS}/versions", ORDER)
    await registry.put("/config/orders-value", json={"compatibility": "NONE"})
    await post(registry, f"{THEIRS}/versions", RENUMBERED)
    async with TestClient(TestServer(registry_app(open_store(bundled(), path=file)))) as restarted:
        assert await get(restarted, f"/schemas/ids/{before['id']}") == before
        assert await get(restarted, f"{THEIRS}/versions") == [1, 2]
        assert await get(restarted, "/config/orders-value") == {"compatibilityLevel": "NONE"}
        assert len(await get(restarted, "/subjects")) == len(bundled().latest()) + 1


async def test_what_a_release_brings_wins_over_the_file(file: Path) -> None:
    """Someone registered the next version before the release that has it: both ids stay readable."""
    lock = bundled()
    doc = {**LOCKED.schema, "doc": "Said better."}
    other = {**LOCKED.schema, "doc": "Said otherwise."}
    async with TestClient(TestServer(registry_app(open_store(lock, path=file)))) as before:
        early = await post(before, f"{OURS}/versions", json.dumps(doc))
        later = await post(before, f"{OURS}/versions", json.dumps(other))
    release = lock.extended({**lock.schemas(), LOCKED.record: doc})
    async with TestClient(TestServer(registry_app(open_store(release, path=file)))) as after:
        looked_up = await post(after, OURS, json.dumps(doc))

        assert (looked_up["version"], looked_up["id"]) == (2, release.ids()[LOCKED.record])
        assert json.loads((await get(after, f"/schemas/ids/{early['id']}"))["schema"]) == doc
        assert await get(after, f"{OURS}/versions") == [1, 2, 3]
        assert (await get(after, f"{OURS}/versions/3"))["id"] == later["id"]


async def test_a_file_that_cannot_be_written_refuses_and_changes_nothing(tmp_path: Path) -> None:
    in_the_way = tmp_path / "folder"
    in_the_way.write_text("no folder")
    store = open_store(bundled())
    store._path = in_the_way / "registry.json"
    async with TestClient(TestServer(registry_app(store))) as registry:
        assert await refused(await registry.post(f"{THEIRS}/versions", json={"schema": ORDER})) == (500, 50001)
        assert "orders-value" not in await get(registry, "/subjects")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"sha256": "00", "document": {}}'])
def test_a_damaged_file_stops_the_start_and_is_named(file: Path, damage: bytes) -> None:
    file.write_bytes(damage)
    with pytest.raises(ConfigError, match=r"registry\.json: damaged"):
        open_store(bundled(), path=file)


def test_one_flipped_letter_in_the_file_is_noticed(file: Path) -> None:
    open_store(bundled(), path=file).register("orders-value", ORDER)
    file.write_bytes(file.read_bytes().replace(b"orders-value", b"orders-valve"))
    with pytest.raises(ConfigError, match="damaged"):
        open_store(bundled(), path=file)
