"""What an answer of the server means, and the seal of payloads."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as Detail
from temporalio.api.common.v1 import GrpcStatus, Payload  # noqa: TID251 - what the door takes and gives
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure  # noqa: TID251 - as above
from temporalio.service import RPCError, RPCStatusCode  # noqa: TID251 - as above

from bridge.errors import BridgeError, PermanentError, TransientError
from consumers.workflow.temporal import LATE, SealedPayloads, _judged, read_codec_keys

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
    (sealed,) = await SealedPayloads({"2026": KEY}).encode([plain])

    assert SAID.encode() not in sealed.SerializeToString()
    for keys in ({"2027": OTHER, "2026": KEY}, {"2026": OTHER, "2025": KEY}):  # the second of renamed files
        assert await SealedPayloads(keys).decode([sealed, plain]) == [plain, plain]


async def test_what_was_changed_or_has_another_key_does_not_open() -> None:
    (sealed,) = await SealedPayloads({"a": KEY}).encode([Payload(data=SAID.encode())])
    changed = Payload(metadata=dict(sealed.metadata), data=sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))

    for key, payload in ((KEY, changed), (OTHER, sealed)):
        with pytest.raises(ValueError, match=r"^sealed with another key, or changed since$"):
            await SealedPayloads({"a": key}).decode([payload])


def test_keys_are_read_with_the_one_in_use_first(tmp_path: Path) -> None:
    for name, key in (("2025", OTHER), ("2026", KEY), ("current", OTHER)):
        (tmp_path / name).write_bytes(b64encode(key) + b"\n")

    assert next(iter(read_codec_keys(tmp_path).items())) == ("current", OTHER)
    (tmp_path / "current").unlink()
    assert list(read_codec_keys(tmp_path).items()) == [("2026", KEY), ("2025", OTHER)]
