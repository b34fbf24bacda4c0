"""What a head says of its body is checked before any of it is read."""

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


@pytest.mark.parametrize(
    ("content_type", "types"),
    [
        (CLOUD_EVENTS, ()),
        (CLOUD_EVENTS + b"; charset=latin-1", (CLOUD_EVENTS,)),
        (b"application/cloudevents", (CLOUD_EVENTS,)),
        (b"", (CLOUD_EVENTS,)),
        (b";", (CLOUD_EVENTS,)),
        (b"application/json application/json", (CLOUD_EVENTS,)),
    ],
)
def test_other_content_types_are_refused(content_type: bytes, types: tuple[bytes, ...]) -> None:
    with pytest.raises(DeliveryRefusedError, match=r"^content_type$"):
        check_content({b"content-type": content_type}, size_max=1, types=types)
