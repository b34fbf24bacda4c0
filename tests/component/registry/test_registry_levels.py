"""What may follow what under which compatibility level."""

import json

import pytest

from tests.component.registry.registry_calls import (
    COMPATIBILITY,
    LOCKED,
    ORDER,
    OURS,
    RENUMBERED,
    THEIRS,
    WITH_NOTE,
    WITH_REQUIRED,
    Client,
    an_order,
    get,
    post,
    read,
    refused,
)


async def test_an_incompatible_schema_is_40901_and_names_the_field(registry: Client) -> None:
    await post(registry, f"{THEIRS}/versions", ORDER)
    response = await registry.post(f"{THEIRS}/versions", json={"schema": WITH_REQUIRED})
    message = (await response.json(content_type=None))["message"]

    assert await refused(response) == (409, 40901)
    assert "note" in message
    assert await get(registry, f"{THEIRS}/versions") == [1]


async def test_a_branch_that_a_union_did_not_have_is_40901_and_names_the_field(registry: Client) -> None:
    """Avro says by the number of the branch in the new union where the old one cannot read it."""
    optional = an_order({"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None})
    wider = optional.replace('"string"', '"string", "long"')
    await post(registry, f"{THEIRS}/versions", optional)
    response = await registry.post(f"{THEIRS}/versions", json={"schema": wider})

    assert wider != optional
    assert "note" in (await response.json(content_type=None))["message"]
    assert await refused(response) == (409, 40901)


@pytest.mark.parametrize("phi", [["D"], {"D": 1}, 1])
async def test_a_class_that_is_no_word_is_none(registry: Client, phi: object) -> None:
    """An attribute may be any JSON value."""
    schema = json.loads(json.dumps(LOCKED.schema))
    next(each for each in schema["fields"] if each.get("phi"))["phi"] = phi
    answer = await post(registry, f"/compatibility{OURS}/versions/latest?verbose=true", json.dumps(schema))

    assert "[phi_lowered]" in answer["messages"][0]


async def test_our_own_subjects_are_held_to_the_stricter_rules(registry: Client) -> None:
    """Avro's own check does not see a changed logical type; our rules do."""
    text = json.dumps(LOCKED.schema)
    changed = text.replace("timestamp-micros", "timestamp-millis", 1)
    answer = await post(registry, f"/compatibility{OURS}/versions/latest?verbose=true", changed)

    assert changed != text
    assert answer["is_compatible"] is False
    assert "logicalType" in answer["messages"][0]
    assert await refused(await registry.post(f"{OURS}/versions", json={"schema": changed})) == (409, 40901)


@pytest.mark.parametrize(
    ("level", "schema", "compatible"),
    [
        ("NONE", RENUMBERED, True),
        ("BACKWARD", WITH_NOTE, True),
        ("BACKWARD", WITH_REQUIRED, False),
        ("BACKWARD", RENUMBERED, False),
        ("FORWARD", WITH_REQUIRED, True),
        ("FORWARD", RENUMBERED, False),
        ("FULL", WITH_NOTE, True),
        ("FULL", WITH_REQUIRED, False),
        ("full_transitive", WITH_REQUIRED, False),
        ("BACKWARD", an_order({"name": "id", "type": "double"}), True),
        ("FORWARD", an_order({"name": "id", "type": "double"}), False),
        ("BACKWARD", an_order({"name": "id", "type": ["null", "long"]}), True),
        ("FORWARD", an_order({"name": "id", "type": ["null", "long"]}), False),
        ("BACKWARD", an_order({"name": "number", "aliases": ["id"], "type": "long"}), True),
        ("BACKWARD", an_order(name="Purchase"), False),
        ("BACKWARD", an_order(name="Purchase", aliases=["Order"]), True),
    ],
)
async def test_levels_decide_what_may_follow(registry: Client, level: str, schema: str, *, compatible: bool) -> None:
    await post(registry, f"{THEIRS}/versions", ORDER)
    await registry.put("/config/orders-value", json={"compatibility": level})
    answers = [await post(registry, f"{COMPATIBILITY}/{which}?verbose=True", schema) for which in ("latest", "1", "-1")]
    answers.append(await post(registry, f"{COMPATIBILITY}?verbose=true", schema))

    assert [answer["is_compatible"] for answer in answers] == [compatible] * 4
    assert [bool(answer["messages"]) for answer in answers] == [not compatible] * 4


async def test_only_a_transitive_level_looks_past_the_latest_version(registry: Client) -> None:
    with_number = an_order({"name": "id", "type": "long"}, {"name": "note", "type": "int", "default": 0})
    await registry.put("/config/orders-value", json={"compatibility": "BACKWARD"})
    for schema in (WITH_NOTE, ORDER):
        await post(registry, f"{THEIRS}/versions", schema)

    assert await post(registry, COMPATIBILITY, with_number) == {"is_compatible": True}
    await registry.put("/config/orders-value", json={"compatibility": "BACKWARD_TRANSITIVE"})
    assert await post(registry, COMPATIBILITY, with_number) == {"is_compatible": False}
    assert await post(registry, f"{COMPATIBILITY}/2", with_number) == {"is_compatible": True}


async def test_records_that_contain_themselves_are_compared(registry: Client) -> None:
    tree = an_order({"name": "id", "type": "long"}, {"name": "next", "type": ["null", "Order"], "default": None})
    grown = an_order(*json.loads(tree)["fields"], {"name": "note", "type": "string", "default": ""})
    await post(registry, f"{THEIRS}/versions", tree)

    assert (await post(registry, f"{THEIRS}/versions", grown))["version"] == 2


async def test_anything_may_follow_nothing(registry: Client) -> None:
    assert await post(registry, f"{COMPATIBILITY}/latest", ORDER) == {"is_compatible": True}
    assert await post(registry, f"{COMPATIBILITY}?verbose=true", ORDER) == {"is_compatible": True, "messages": []}
    assert await refused(await registry.post(f"{COMPATIBILITY}/1", json={"schema": ORDER})) == (404, 40401)
    assert await refused(await registry.post(f"{COMPATIBILITY}/zero", json={"schema": ORDER})) == (422, 42202)


async def test_levels_are_set_for_one_and_for_all(registry: Client) -> None:
    response = await registry.put("/config/orders-value", json={"compatibility": "backward"})
    assert await read(response) == {"compatibility": "BACKWARD"}
    await registry.put("/config", json={"compatibility": "NONE"})

    assert await get(registry, "/config/orders-value") == {"compatibilityLevel": "BACKWARD"}
    assert await get(registry, "/config") == {"compatibilityLevel": "NONE"}
    assert await get(registry, f"/config/{LOCKED.subject}") == {"compatibilityLevel": "FULL_TRANSITIVE"}


@pytest.mark.parametrize("body", [{"compatibility": "SIDEWAYS"}, {"compatibility": None}, {}])
async def test_an_unknown_level_is_42203(registry: Client, body: dict[str, object]) -> None:
    assert await refused(await registry.put("/config", json=body)) == (422, 42203)
