"""The fault matrix of the ingress: whatever happens, what was answered 2xx is kept, once and in order."""

from __future__ import annotations

import pytest

from tests.faults.ingress import rows_brokers
from tests.faults.ingress.results import keep
from tests.faults.ingress.row import Row, play
from tests.faults.ingress.scene import Stage

pytestmark = pytest.mark.kafka

SHORT, LONG = 1.0, 5.0
ROWS = (*rows_brokers.ROWS,)


@pytest.mark.parametrize(
    ("row", "factor"),
    [
        *(pytest.param(row, SHORT, id=row.name) for row in ROWS),
        *(pytest.param(row, LONG, id=f"{row.name}-long", marks=pytest.mark.faults) for row in ROWS),
    ],
)
async def test_every_promise_is_kept(stage: Stage, seed: int, row: Row, factor: float) -> None:
    outcome = await play(row, stage, seed=seed, factor=factor)
    keep(outcome.result)

    assert outcome.broken == []
