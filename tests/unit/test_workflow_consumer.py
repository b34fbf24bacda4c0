"""Settings and rules of workflow, the meaning of the server's responses, and encryption."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf.any_pb2 import Any as Detail
from prometheus_client import CollectorRegistry
from temporalio.api.common.v1 import GrpcStatus, Payload  # noqa: TID251 - what the wrapper converts
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure  # noqa: TID251 - as above
from temporalio.service import RPCError, RPCStatusCode  # noqa: TID251 - as above

from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError, ConfigError, PermanentError, TransientError
from consumers.api import Consumer, Context, Setup
from consumers.testing import an_event
from consumers.workflow.consumer import open_workflow
from consumers.workflow.options import SHIPPED_RULES
from consumers.workflow.rules import Action, Rules, parse_rules, payload, request_id
from consumers.workflow.temporal import LATE, EncryptedPayloads, _judged, read_codec_keys

LEAST = {"address": "temporal.example:7233"}


def opened(**options: str) -> Consumer:
    return open_workflow(Setup({**LEAST, **options}, CollectorRegistry()))


def test_doctor_is_told_where_health_information_goes(tmp_path: Path) -> None:
    (tmp_path / "2026-09").write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    ids, table = opened().discloses or ()
    plain, whole = opened(
        allow_plaintext="true", payload="full", codec_key_dir=str(tmp_path), timers="off"
    ).discloses or ()  # fmt: skip

    of = "histories of Temporal at temporal.example:7233, namespace default"
    assert ids == f"ids of prescriptions, requests, messages and accounts: {of}"
    assert table == "ids of overdue waits: table workflow.started of this database"
    assert plain == f"ids of prescriptions, requests, messages and accounts, in clear: {of}"
    assert whole == f"whole events, encrypted with the key 2026-09 of {tmp_path}: {of}"


class Recorder:
    def __init__(self) -> None:
        self.actions: list[Action] = []

    async def act(self, action: Action, payload: bytes, *, request_id: str) -> bool:
        assert payload
        assert request_id
        self.actions.append(action)
        return True


@pytest.mark.parametrize(
    ("origin", "imports", "many"),
    [("", "skip", 1), ("replay", "skip", 1), ("import", "skip", 0), ("import", "apply", 1)],
)
async def test_an_import_starts_nothing_unless_that_is_wanted(origin: str, imports: str, many: int) -> None:
    resource = Recorder()
    context = Context("workflow", "drx.prescriptions.v1", 0, 0, "test:0", 1, resource=resource, origin=origin)
    handle: Any = opened(imports=imports).handle
    await handle(an_event("alert.raised"), context)

    assert len(resource.actions) == many


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("c2hvcnQ=")
    for options, words in (
        ({"tls_dir": str(tmp_path)}, "has neither ca.crt nor tls.crt"),
        ({"api_key_file": str(tmp_path / "none")}, "workflow.api_key_file"),
        ({"codec_key_dir": str(tmp_path)}, "a key is the base64 of 32 bytes"),
    ):
        around = opened(**options).around
        assert around is not None
        with pytest.raises(ConfigError, match=words):
            async with around():
                pass


SHIPPED = SHIPPED_RULES.read_text()
ONE = """\
task_queue = "desk"

[[rule]]
types = ["renewal.requested"]
do = "signal_or_start"
workflow = "Renewal"
signal = "asked"
id = "renewal:{request_id}"
"""


def rules(text: str = SHIPPED) -> Rules:
    return parse_rules(text, file="rules.toml")


def test_the_rules_shipped_start_and_signal_what_the_page_says() -> None:
    found = {event_type: rules().action(an_event(event_type, key="rx_1", id="e1")) for event_type in EVENT_MODELS}
    told = {each: None if it is None else (it.do, it.workflow, it.signal, it.id) for each, it in found.items()}

    assert told == {
        **dict.fromkeys(EVENT_MODELS),
        "renewal.requested": ("signal_or_start", "Renewal", "asked", "renewal:drx:request_id"),
        "renewal.responded": ("signal_or_start", "Renewal", "answered", "renewal:drx:request_id"),
        "renewal.closed": ("signal_or_start", "Renewal", "closed", "renewal:drx:request_id"),
        "change.requested": ("signal_or_start", "Change", "asked", "change:drx:request_id"),
        "change.responded": ("signal_or_start", "Change", "answered", "change:drx:request_id"),
        "cancel.requested": ("signal_or_start", "Cancel", "asked", "cancel:drx:request_id"),
        "cancel.responded": ("signal_or_start", "Cancel", "answered", "cancel:drx:request_id"),
        "prescription.transmission_failed": ("start", "Repair", "", "repair:drx:rx_1:e1"),
        "epcs.signing_failed": ("start", "Repair", "", "repair:drx:rx_1:e1"),
        "alert.raised": ("start", "Alert", "", "alert:drx:alert_id"),
    }
    assert {action.task_queue for action in found.values() if action} == {"drx"}


def test_the_first_rule_that_fits_counts() -> None:
    first = ONE.replace('id = "', 'when = "data.urgent"\nid = "urgent:')
    found = rules(first + ONE.partition("\n")[2] + 'task_queue = "renewals"\n')
    event = an_event("renewal.requested", request_id="r1")

    assert found.action(event) == Action("signal_or_start", "renewal:r1", "Renewal", "renewals", "asked")
    assert found.action(an_event("renewal.closed")) is None


def test_a_rule_for_all_types_starts_nothing_for_heartbeats() -> None:
    every = ONE.replace("renewal.requested", "*").replace("{request_id}", "{event_id}")

    assert rules(every).action(an_event("prescription.sent")) is not None
    assert rules(every).action(an_event("system.ping")) is None
    assert rules(every.replace('"*"', '"*", "system.ping"')).action(an_event("system.ping")) is not None


def test_an_id_is_made_of_the_first_that_the_event_has() -> None:
    text = ONE.replace("{request_id}", "{message_id|event_id}")
    with_one, without = an_event("renewal.requested", message_id="m1"), an_event("renewal.requested", id="e1")

    found = [rules(text).action(each) for each in (with_one, without)]
    assert [each and each.id for each in found] == ["renewal:m1", "renewal:e1"]


def test_an_id_that_the_event_lacks_parks_it() -> None:
    with pytest.raises(PermanentError, match=r"^no_id$"):
        rules(ONE.replace("{request_id}", "{message_id}")).action(an_event("renewal.requested"))


def test_a_condition_without_a_result_parks_and_shows_no_value() -> None:
    text = ONE.replace("id =", 'when = "length(data.urgent) > `1`"\nid =')
    with pytest.raises(PermanentError, match=r"^when_failed$"):
        rules(text).action(an_event("renewal.requested"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["renewal.requested"]', '["renewal.asked"]', "rule 1 types: no event type is 'renewal.asked'"),
        ('["renewal.requested"]', '[\n  "renewal.*",\n  "nil"\n]', "rule 1 types: no event type is 'nil'"),
        ("{request_id}", "{patient}", "rule 1 id: has no {patient}"),
        ("{request_id}", "{request_id", "rule 1 id: has an unmatched brace"),
        ("{request_id}", "{alert_id}", "rule 1: renewal.requested has no alert_id"),
        ('signal = "asked"\n', "", "rule 1: signal_or_start needs signal"),
        ('workflow = "Renewal"\n', "", "rule 1: signal_or_start needs workflow"),
        ("signal_or_start", "start", "rule 1: start takes no signal"),
        ("signal_or_start", "signal", "rule 1: signal takes no workflow"),
        ('workflow = "Renewal"', "workflow = Renewal", "line 6: invalid TOML"),
        ('signal = "asked"', 'signal = "asked"\nwhen = "data.["', "rule 1 when: is not a JMESPath expression"),
        ('signal = "asked"', 'signal = "asked"\nsingal = "asked"', "rule 1 singal: "),
        (ONE[ONE.index("[[rule]]") :], "", "rule: "),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_used_is_named(old: str, new: str, said: str) -> None:
    assert old in ONE
    with pytest.raises(ConfigError) as caught:
        rules(ONE.replace(old, new))

    assert str(caught.value).startswith("rules.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_default_only_ids_and_a_time_are_told() -> None:
    event = an_event("renewal.requested", key="rx_1", id="e1", patient={"last_name": "Berry"}, request_id="r1")

    assert orjson.loads(payload(event, whole=False)) == {
        "account_id": "acct_1",
        "event_id": "e1",
        "key": "rx_1",
        "occurred_at": "2026-09-14T15:09:26Z",
        "source": "drx",
        "type": "renewal.requested",
    }
    assert orjson.loads(payload(event, whole=True))["event"]["data"]["patient"]["last_name"] == "Berry"


def test_every_event_has_a_request_id_of_its_own_that_stays() -> None:
    asked = [("workflow", "drx", "e1"), ("workflow", "drx", "e2"), ("workflow.b", "drx", "e1"), ("workflow", "q", "e1")]

    assert len({request_id(*each) for each in asked}) == len(asked)
    # Another release must send the same.
    assert request_id(*asked[0]) == "3f1e25af-12e9-5827-89af-5d9de35c3feb"


KEY, OTHER = b"k" * 32, b"o" * 32
SAID = "rx_1 of Berry"


def answered(status: RPCStatusCode, *details: Detail) -> RPCError:
    return RPCError(SAID, status, GrpcStatus(details=details).SerializeToString())


@pytest.mark.parametrize(
    ("status", "kind", "code", "systemic"),
    [
        (RPCStatusCode.UNAVAILABLE, TransientError, "unreachable", True),
        (RPCStatusCode.DEADLINE_EXCEEDED, TransientError, "timeout", True),
        (RPCStatusCode.CANCELLED, TransientError, "timeout", True),
        (RPCStatusCode.RESOURCE_EXHAUSTED, TransientError, "resource_exhausted", True),
        (RPCStatusCode.UNAUTHENTICATED, TransientError, "unauthorized", True),
        (RPCStatusCode.PERMISSION_DENIED, TransientError, "unauthorized", True),
        (RPCStatusCode.NOT_FOUND, TransientError, "namespace_missing", True),
        (RPCStatusCode.INVALID_ARGUMENT, PermanentError, "invalid_argument", False),
        (RPCStatusCode.INTERNAL, TransientError, "internal", True),
        (RPCStatusCode.UNKNOWN, TransientError, "unknown", True),
        (RPCStatusCode.UNIMPLEMENTED, TransientError, "unimplemented", True),
        (RPCStatusCode.FAILED_PRECONDITION, TransientError, "failed_precondition", True),
        (RPCStatusCode.ABORTED, TransientError, "aborted", False),
    ],
)
def test_an_answer_has_a_code_and_a_class(
    status: RPCStatusCode, kind: type[BridgeError], code: str, *, systemic: bool
) -> None:
    with pytest.raises(kind) as caught:
        _judged(answered(status), may_be_missing=False)

    assert caught.value.code == code
    assert getattr(caught.value, "systemic", False) is systemic
    assert "Berry" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_workflow_that_was_there_before_or_is_no_more_is_no_error() -> None:
    assert _judged(answered(RPCStatusCode.ALREADY_EXISTS), may_be_missing=False) == LATE
    assert _judged(answered(RPCStatusCode.NOT_FOUND), may_be_missing=True) == LATE


def test_a_missing_namespace_is_not_taken_for_a_missing_workflow() -> None:
    detail = Detail()
    detail.Pack(NamespaceNotFoundFailure(namespace="other"))

    with pytest.raises(TransientError, match=r"^namespace_missing$"):
        _judged(answered(RPCStatusCode.NOT_FOUND, detail), may_be_missing=True)


async def test_what_is_sealed_opens_with_its_key_and_shows_nothing() -> None:
    plain = Payload(metadata={"encoding": b"json/plain"}, data=SAID.encode())
    (sealed,) = await EncryptedPayloads({"2026": KEY}).encode([plain])

    assert SAID.encode() not in sealed.SerializeToString()
    for keys in ({"2027": OTHER, "2026": KEY}, {"2026": OTHER, "2025": KEY}):  # the second of renamed files
        assert await EncryptedPayloads(keys).decode([sealed, plain]) == [plain, plain]


async def test_what_was_changed_or_has_another_key_does_not_open() -> None:
    (sealed,) = await EncryptedPayloads({"a": KEY}).encode([Payload(data=SAID.encode())])
    changed = Payload(metadata=dict(sealed.metadata), data=sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))

    for key, other in ((KEY, changed), (OTHER, sealed)):
        with pytest.raises(ValueError, match=r"^encrypted with another key, or changed since$"):
            await EncryptedPayloads({"a": key}).decode([other])


def test_keys_are_read_with_the_one_in_use_first(tmp_path: Path) -> None:
    for name, key in (("2025", OTHER), ("2026", KEY), ("current", OTHER)):
        (tmp_path / name).write_bytes(b64encode(key) + b"\n")

    assert next(iter(read_codec_keys(tmp_path).items())) == ("current", OTHER)
    (tmp_path / "current").unlink()
    assert list(read_codec_keys(tmp_path).items()) == [("2026", KEY), ("2025", OTHER)]
