"""Offsets of another Kafka cluster are refused, and the line names the remedy."""

from datetime import UTC, datetime

import pytest

from bridge.errors import ConfigError
from consumers.runtime.operator import Progress
from consumers.runtime.start_checks import check_cluster


def standing(cluster_id: str | None) -> Progress:
    return Progress(5, None, 1, cluster_id, datetime(2026, 9, 14, tzinfo=UTC), 0, 0, 0)


@pytest.mark.parametrize("accepted", [None, "A"])
def test_offsets_of_another_cluster_are_refused_until_they_are_accepted(accepted: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        check_cluster("desk", [standing("A")], cluster_id="B", accepted=accepted)

    complaint = str(caught.value)
    assert "are of Kafka cluster A, and this is B" in complaint
    assert "set CONSUMER_KAFKA__ACCEPT_CLUSTER_ID=B" in complaint
    assert "`drx-consumer init desk --from … --force --reason …`" in complaint
    check_cluster("desk", [standing("A")], cluster_id="B", accepted="B")
    # One that is not known is no other.
    check_cluster("desk", [standing(None), standing("B")], cluster_id="B", accepted=None)
