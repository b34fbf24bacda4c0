"""Schema ids at a start: from the file of that registry, else looked up, else unknown for now."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bridge.kafka.routing import RoutingTable
from bridge.registry.client import RegistryClient, RegistryUnavailableError
from bridge.registry.ids import IdsMissingError, newest, read_ids, resolve_ids, wanted, write_ids
from bridge.registry.loader import bundled

LOCKED = bundled().entries[0]
OURS = wanted(newest(bundled()), RoutingTable().topics_of_type)


class Answers(RegistryClient):
    """A registry that holds some records under some ids, and counts what it is asked."""

    def __init__(self, ids: dict[str, int], url: str = "http://registry.example") -> None:
        self.url, self.ids = url, ids
        self.asked = 0

    async def look_up(self, subject: str, schema: Any) -> int | None:
        del subject
        self.asked += 1
        return self.ids.get(f"{schema['namespace']}.{schema['name']}")

    async def holds(self, schema_id: int, schema: Any) -> bool:
        return self.ids.get(f"{schema['namespace']}.{schema['name']}") == schema_id


class Away(Answers):
    async def look_up(self, subject: str, schema: Any) -> int | None:
        del subject, schema
        self.asked += 1
        raise RegistryUnavailableError(self.url)


def ids_from(first: int, records: Iterable[str] | None = None) -> dict[str, int]:
    return {record: first + index for index, record in enumerate(records or [each.record for each in OURS])}


@pytest.fixture
def ids_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ids.json"


async def test_a_first_start_looks_up_and_keeps_and_the_next_asks_nobody(ids_file: Path) -> None:
    first = await resolve_ids(OURS, registry=Answers(ids_from(100)), path=ids_file)
    away = Away({})

    assert await resolve_ids(OURS, registry=away, path=ids_file) == first == ids_from(100)
    assert away.asked == 0


@pytest.mark.parametrize(("registry", "error"), [(Away({}), RegistryUnavailableError), (Answers({}), IdsMissingError)])
async def test_a_first_start_without_file_and_ids_may_be_tried_again(
    ids_file: Path, registry: Answers, error: type[IdsMissingError | RegistryUnavailableError]
) -> None:
    with pytest.raises(error) as not_yet:
        await resolve_ids(OURS, registry=registry, path=ids_file)

    assert not_yet.value.retriable
    assert read_ids(ids_file, registry.url) == {}


async def test_a_file_of_another_registry_is_not_used(ids_file: Path) -> None:
    await resolve_ids(OURS, registry=Answers(ids_from(100)), path=ids_file)
    with pytest.raises(RegistryUnavailableError):
        await resolve_ids(OURS, registry=Away({}, "http://other.example"), path=ids_file)

    assert await resolve_ids(OURS, registry=Answers(ids_from(500), "http://other.example"), path=ids_file) == ids_from(
        500
    )


async def test_a_new_release_asks_only_for_what_is_new(ids_file: Path) -> None:
    await resolve_ids(OURS[:-1], registry=Answers(ids_from(100)), path=ids_file)
    registry = Answers({OURS[-1].record: 900})
    ids = await resolve_ids(OURS, registry=registry, path=ids_file)

    assert (ids[OURS[-1].record], ids[OURS[0].record]) == (900, 100)
    assert registry.asked == 1


def test_a_damaged_ids_file_counts_as_none(ids_file: Path) -> None:
    write_ids(ids_file, "http://registry.example/", {LOCKED.digest: 7})
    assert read_ids(ids_file, "http://ann:pw@registry.example") == {LOCKED.digest: 7}
    whole = ids_file.read_bytes()
    for damaged in (whole[:-9], whole.replace(b" 7\n", b' "7"\n')):
        assert damaged != whole
        ids_file.write_bytes(damaged)

        assert read_ids(ids_file, "http://registry.example") == {}


async def test_without_a_file_or_with_an_unwritable_one_every_start_looks_up(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    for path in (None, in_the_way / "ids.json"):
        assert await resolve_ids(OURS, registry=Answers(ids_from(100)), path=path) == ids_from(100)
