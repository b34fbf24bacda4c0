"""How the parts that make things durable are set against each other."""

import pytest

from bridge.app import patience_beside_spool
from bridge.settings import Settings


@pytest.mark.parametrize("after_s", [Settings().spool_after_s, 0.1, 0.5, 30.0])
def test_an_outage_is_seen_before_the_first_delivery_in_it_is_spooled(after_s: float) -> None:
    """Or the next one, of another partition, would begin to wait as well."""
    patience = patience_beside_spool(after_s)

    assert patience.stalled_s + patience.tick_s < after_s
