"""Every case; the first are systems without a fault."""

from tests.monitoring.budget_cases import budgets, deliveries
from tests.monitoring.case import DAYS, HOUR, Case, Span
from tests.monitoring.consumer_cases import consumers
from tests.monitoring.durability_cases import durability, upkeep


def cases() -> list[Case]:
    well = [Case("nothing is wrong", {}, span=Span(3 * HOUR)), Case("nothing is wrong for days", {}, span=DAYS)]
    return [*well, *budgets(), *deliveries(), *durability(), *upkeep(), *consumers()]
