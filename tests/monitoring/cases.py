"""Every case; the first is a system without a fault."""

from __future__ import annotations

from tests.monitoring.budget_cases import budgets, deliveries
from tests.monitoring.case import Case
from tests.monitoring.consumer_cases import consumers
from tests.monitoring.durability_cases import durability, upkeep


def cases() -> list[Case]:
    """Return all of them; the first is a system without a fault."""
    well = Case("nothing is wrong", {})
    return [well, *budgets(), *deliveries(), *durability(), *upkeep(), *consumers()]
