"""The fault matrix of the ingress: every event with a 2xx is kept, once and in order."""

import os
from dataclasses import replace

import pytest

from tests.faults.ingress import (
    nemesis,
    rows_attacks,
    rows_brokers,
    rows_clocks,
    rows_damage,
    rows_disk,
    rows_paths,
    rows_process,
    rows_replicas,
    rows_secrets,
    rows_topics,
    rows_traffic,
)
from tests.faults.ingress.results import keep
from tests.faults.ingress.row import Row, play
from tests.faults.ingress.scene import Stage, Tier

pytestmark = [
    pytest.mark.kafka,
    # The bridge is a process of its own. In the harness, aiokafka leaves its first connection open when it is given up
    # because brokers are frozen, and whichever test collects that garbage would be said to have failed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# As long as test_sabotage.py needs to find what is broken; waits are longer than the 2 s after which Kafka is given up.
SHORT = Tier(factor=0.7, rate=60.0, at_once=40)
# A machine with nothing else to do can take more, for longer.
FACTOR_VARIABLE, RATE_VARIABLE = "DRX_FAULTS_FACTOR", "DRX_FAULTS_RATE"
LONG = Tier(
    factor=float(os.environ.get(FACTOR_VARIABLE, "5")), rate=float(os.environ.get(RATE_VARIABLE, "100")), at_once=500
)
PARTS = (
    rows_brokers,
    rows_paths,
    rows_topics,
    rows_process,
    rows_disk,
    rows_damage,
    rows_traffic,
    rows_attacks,
    rows_secrets,
    rows_replicas,
    rows_clocks,
    nemesis,
)
ROWS = [row for part in PARTS for row in part.ROWS]
# Where senders, clocks, the disk or the way to the brokers make the trouble, the read model meets nothing of it: in the
# short tier it stays away.
BESIDE = (rows_paths, rows_disk, rows_damage, rows_attacks, rows_secrets, rows_clocks)
SHORT_ROWS = [
    replace(row, effects=row.effects and part not in BESIDE) for part in PARTS for row in part.ROWS if row.short
]


@pytest.mark.parametrize(
    ("row", "tier"),
    [
        *(pytest.param(row, SHORT, id=row.name) for row in SHORT_ROWS),
        *(pytest.param(row, LONG, id=f"{row.name}-long", marks=pytest.mark.faults) for row in ROWS),
    ],
)
async def test_every_promise_is_kept(stage: Stage, seed: int, row: Row, tier: Tier) -> None:
    outcome = await play(row, stage, seed=seed, tier=tier)
    keep(outcome.result)

    assert outcome.broken == []
