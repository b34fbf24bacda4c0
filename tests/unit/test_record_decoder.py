"""The kind of a record for a consumer, by its headers and content."""

import pytest
from prometheus_client import CollectorRegistry

from consumers.api import Consumer, Setup
from consumers.read_model.consumer import open_read_model
from consumers.runtime.decoding import RecordDecoder, Skip, UnknownTypeError
from consumers.runtime.retry_policy import Failure
from tests.settling import PLACE, POISON, PlainDecoder, a_record


def a_record_decoder(unknown: str, *types: str) -> RecordDecoder:
    decoder = PlainDecoder()
    decoder.unknown.update({"renewal.foreseen", "made.up"})
    return RecordDecoder(Consumer("tests", [PLACE.topic], types=types, unknown=unknown), decoder)  # type: ignore[arg-type]  # one of three words


@pytest.mark.parametrize("unknown", ["skip", "park", "fail"])
@pytest.mark.parametrize("value", [None, POISON], ids=["sound", "poison"])
def test_an_unknown_type_that_nobody_asked_for_is_passed_over(unknown: str, value: bytes | None) -> None:
    record_decoder = a_record_decoder(unknown, "renewal.*", "prescription.sent")
    record = a_record(0, type="made.up", value=value)

    assert (record_decoder.skips(record), record_decoder.decode(record)) == (Skip.UNWANTED, Skip.UNWANTED)


@pytest.mark.parametrize("types", [["renewal.*"], ["*"]], ids=["its pattern", "everything"])
def test_an_unknown_type_that_was_asked_for_is_what_the_consumer_says(types: list[str]) -> None:
    record = a_record(0, type="renewal.foreseen")

    assert (a_record_decoder("skip", *types).decode(record), a_record_decoder("skip", *types).skips(record)) == (
        Skip.UNKNOWN,
        Skip.UNKNOWN,
    )
    assert a_record_decoder("park", *types).decode(record) == Failure("poison", "unknown_record")
    with pytest.raises(UnknownTypeError):
        a_record_decoder("fail", *types).decode(record)


def test_a_record_without_the_header_of_its_type_may_be_anything() -> None:
    record = a_record(0, type="made.up")
    record = record._replace(headers=[each for each in record.headers if each[0] != "ce_type"])

    assert a_record_decoder("park", "renewal.*").decode(record) == Failure("poison", "unknown_record")


def test_the_read_model_keeps_what_only_a_newer_release_knows() -> None:
    """Skipped, it would be missing from the history for ever."""
    assert open_read_model(Setup({}, CollectorRegistry())).unknown == "park"
