"""Where the sample lives end is where the oracle does."""

import json

import pytest

from tests.builders import SAMPLES
from tests.oracle.states import expected_state

SCENARIOS = sorted(path.stem for path in (SAMPLES / "scenarios").glob("*.ndjson"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_ends_as_it_says(scenario: str) -> None:
    folder = SAMPLES / "scenarios"
    told = [json.loads(text) for text in (folder / f"{scenario}.ndjson").read_text().splitlines()]
    end = json.loads((folder / f"{scenario}.expect.json").read_text())["expect"]

    state = expected_state(told)

    assert {name: state[name] for name in end} == end
