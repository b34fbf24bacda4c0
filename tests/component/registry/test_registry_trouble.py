"""What real registries have been seen to do, and what the client makes of it."""

import pytest

from bridge.errors import ConfigError
from bridge.registry.client import (
    TIMEOUT_S,
    RegistryRefusedError,
    RegistryUnavailableError,
    SchemaUnknownError,
    plain_url,
)
from tests.component.registry.registry_fakes import ORDER, Answer, Clock, Connector, FakeRegistry, shown


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {"error_code": 50003, "message": "Error while forwarding the request to the master"}),
        (503, "<html>"),
        (429, {"error_code": 429}),
    ],
)
async def test_passing_trouble_is_outlived(
    connect: Connector, fake: FakeRegistry, clock: Clock, trouble: Answer
) -> None:
    """Karapace answers 500/50003 until it has elected a primary."""
    fake.answers["GET /schemas/ids/7"] = [trouble, trouble, shown(ORDER)]
    client = await connect(fake.app())

    assert (await client.fetch(7)).schema == ORDER
    assert clock.slept == [pytest.approx(0.075), pytest.approx(0.15)]


async def test_lasting_trouble_is_unavailable_and_asked_again_next_time(
    connect: Connector, fake: FakeRegistry, clock: Clock
) -> None:
    fake.answers["GET /schemas/ids/7"] = [*[(500, {})] * 4, shown(ORDER)]
    client = await connect(fake.app())
    with pytest.raises(RegistryUnavailableError) as unavailable:
        await client.fetch(7)
    assert unavailable.value.retriable
    assert len(clock.slept) == 3

    assert (await client.fetch(7)).schema == ORDER


async def test_a_slow_registry_is_unavailable(connect: Connector, fake: FakeRegistry) -> None:
    """The bound itself is asserted apart, so that this test need not wait for it four times."""
    assert TIMEOUT_S == 2.0
    fake.hangs = True
    client = await connect(fake.app(), timeout_s=0.05)
    with pytest.raises(RegistryUnavailableError, match="no answer in 4 tries"):
        await client.fetch(7)


async def test_nobody_listening_is_unavailable(connect: Connector) -> None:
    client = connect.client("http://ann:secret@127.0.0.1:9")
    with pytest.raises(RegistryUnavailableError) as unavailable:
        await client.fetch(7)

    assert str(unavailable.value).startswith("registry http://127.0.0.1:9: no answer in 4 tries;")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not an address",
        "registry:8081",
        "http://",
        "http://:8081",
        "http://a:port",
        "ftp://a",
        "http://registry..svc:8081",
    ],
)
def test_an_address_that_cannot_be_asked_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="not an http address"):
        plain_url(url)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>Log in</html>"),
        (200, []),
        (200, {"id": 7}),
        (200, {"schema": "{"}),
        (200, {"schema": 7}),
        shown(ORDER, guid="nonsense"),
    ],
)
async def test_what_is_no_registrys_answer_is_unavailable(
    connect: Connector, fake: FakeRegistry, answer: Answer
) -> None:
    fake.answers["GET /schemas/ids/7"] = [answer]
    client = await connect(fake.app())
    with pytest.raises(RegistryUnavailableError):
        await client.fetch(7)


@pytest.mark.parametrize(
    "answer",
    [
        shown("string"),
        (200, {"schema": "message X {}", "schemaType": "PROTOBUF"}),
        shown(ORDER, schemaType="JSON"),
        shown(ORDER, references=[{"name": "x", "subject": "x", "version": 1}]),
    ],
)
async def test_what_is_no_self_contained_avro_record_is_unknown_for_good(
    connect: Connector, fake: FakeRegistry, answer: Answer
) -> None:
    fake.answers["GET /schemas/ids/7"] = [answer]
    client = await connect(fake.app())
    with pytest.raises(SchemaUnknownError):
        await client.fetch(7)


async def test_a_null_kind_is_avro(connect: Connector, fake: FakeRegistry) -> None:
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER, schemaType=None, references=[])]

    assert (await (await connect(fake.app())).fetch(7)).schema == ORDER


@pytest.mark.parametrize("status", [401, 403])
async def test_no_access_is_refused_with_the_status(connect: Connector, fake: FakeRegistry, status: int) -> None:
    fake.answers["GET /schemas/ids/7"] = [(status, "Unauthorized")]
    client = await connect(fake.app())
    with pytest.raises(RegistryRefusedError) as refused:
        await client.fetch(7)

    assert (refused.value.status, refused.value.error_code, refused.value.retriable) == (status, 0, False)
