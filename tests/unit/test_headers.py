"""The headers of a request are checked before its body is read."""

import pytest

from bridge.errors import DeliveryRefusedError
from bridge.ingress.headers import check_content

CLOUD_EVENTS = b"application/cloudevents+json"


def test_a_source_may_have_a_content_type_of_its_own() -> None:
    for content_type in (
        *(b"application/json", b"Application/JSON ; charset=UTF-8"),
        *(CLOUD_EVENTS, b"Application/CloudEvents+JSON", CLOUD_EVENTS + b'; charset="utf-8"'),
    ):
        check_content({b"content-type": content_type}, size_max=1, types=(CLOUD_EVENTS,))


FHIR = b"application/fhir+json"
XML = (b"application/xml", b"text/xml", b"+xml")


@pytest.mark.parametrize("parameters", [b"; fhirVersion=4.0", b";fhirVersion=4.0; charset=UTF-8", b'; a="b;c"'])
def test_parameters_of_a_listed_type_are_passed_over(parameters: bytes) -> None:
    check_content({b"content-type": FHIR + parameters}, size_max=1, types=(FHIR,))


def test_a_source_of_xml_takes_every_type_of_xml_and_no_json() -> None:
    for content_type in (b"application/xml", b"Text/XML; charset=utf-16", b"application/fhir+xml;fhirVersion=4.0"):
        check_content({b"content-type": content_type}, size_max=1, types=XML, json=False)
    for content_type in (b"application/json", b"application/xml; charset=latin-1", b"xml", b"a+json", b""):
        with pytest.raises(DeliveryRefusedError, match=r"^content_type$"):
            check_content({b"content-type": content_type}, size_max=1, types=XML, json=False)


@pytest.mark.parametrize(
    ("content_type", "types"),
    [
        (CLOUD_EVENTS, ()),
        (b"application/json; fhirVersion=4.0", (FHIR,)),
        (CLOUD_EVENTS + b"; charset=latin-1", (CLOUD_EVENTS,)),
        (b"application/cloudevents", (CLOUD_EVENTS,)),
        (b"", (CLOUD_EVENTS,)),
        (b";", (CLOUD_EVENTS,)),
        (b"application/json application/json", (CLOUD_EVENTS,)),
    ],
)
def test_other_content_types_are_refused(content_type: bytes, types: tuple[bytes, ...]) -> None:
    with pytest.raises(DeliveryRefusedError, match=r"^content_type$") as refused:
        check_content({b"content-type": content_type}, size_max=1, types=types)

    assert (refused.value.reason, refused.value.wait_s) == ("", 0)
