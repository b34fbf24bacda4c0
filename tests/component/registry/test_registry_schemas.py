"""When two texts say the same schema."""

import copy
import json

import pytest

from bridge.registry.loader import bundled
from bridge.registry.schemas import meaning


def test_documentation_is_no_part_of_the_meaning() -> None:
    schema = copy.deepcopy(dict(bundled().entries[0].schema))
    other = {**schema, "doc": "Otherwise."}

    assert meaning(schema) == meaning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timestamp-micros", "timestamp-millis"),
        ('"precision": ', '"precision": 1'),
        ('"default": null', '"default_": null'),
        ('"UNKNOWN"', '"UNSEEN"'),
    ],
)
def test_what_changes_the_reading_changes_the_meaning(one: str, other: str) -> None:
    texts = [json.dumps(schema) for schema in bundled().schemas().values() if one in json.dumps(schema)]

    assert texts
    assert all(meaning(json.loads(text)) != meaning(json.loads(text.replace(one, other))) for text in texts)
