from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.alerts import faults


@dataclass(frozen=True, slots=True)
class Case:
    """One alert of one urgency, and its fault."""

    alert: str
    severity: Literal["page", "ticket"]
    title: str  # the fault, as in the table of results
    fault: faults.Fault
    consequences: Mapping[str, str] = field(default_factory=dict)  # further pages that may fire, with their reasons


KAFKA_AWAY = {
    "HeartbeatMissing": "a heartbeat counts when Kafka has it",
    "ConsumerStuck": "what was in the topics when the broker went cannot be read",
    "FreshnessBurnFast": "consumers come back after the broker, and what they find then is late",
}
INGRESS_AWAY = {"HeartbeatMissing": "the ingress is down for seconds, which are minutes here"}
ALONE = KAFKA_AWAY | INGRESS_AWAY
DATABASE_AWAY = {
    "ConsumerStuck": "nothing can be settled",
    "FreshnessBurnFast": "what was held up is late when it is applied at last",
}

DELIVERIES = (
    Case("SignatureFailureSpike", "ticket", "20 deliveries signed with another key", faults.forged),
    Case("ClockSkewSuspected", "page", "5 genuine deliveries with times an hour old", faults.late_clock),
    Case("ClockSkewSuspected", "ticket", "40 deliveries with times 100 s old", faults.slow_clock),
    Case("UnrecognizedGrowing", "ticket", "10 deliveries of an unknown type", faults.unheard_of),
    Case("UnknownTypes", "ticket", "an event of a type that the contract does not know", faults.new_type),
    Case("IdConflict", "ticket", "another body under an id that was used", faults.two_bodies),
    Case("SecretReloadFailed", "ticket", "a second file that is not a secret", faults.bad_secret),
    Case("SecretExpiringSoon", "ticket", "a secret that ends in a week", faults.ending_secret(hours=3)),
    Case("SecretExpiringSoon", "page", "a secret that ends in two days", faults.ending_secret(hours=1)),
)
CONSUMERS = (
    Case("ParkedKeysGrowing", "ticket", "a record of another producer in the topic", faults.poison),
    Case("ConsumerStuck", "page", "a record of another producer, parked for an hour", faults.poison),
    Case("SafetySignal", "page", "a prescription dispensed after its cancellation", faults.dispensed_after_cancel),
    Case("ConsumerStuck", "page", "a consumer frozen", faults.consumer_frozen),
    Case(
        "TargetMissing",
        "ticket",
        "a consumer frozen, while others answer",
        faults.consumer_frozen,
        {"ConsumerStuck": "it was the only one of its group"},
    ),
    Case("ConsumerStuck", "page", "records deleted before a consumer has read them", faults.records_deleted),
)
DURABILITY = (
    Case("ProduceFailing", "ticket", "an event larger than its topic takes", faults.refused_by_size),
    Case("ProduceFailing", "ticket", "the broker killed", faults.kafka_killed, KAFKA_AWAY),
    Case("SpoolStuck", "ticket", "an event larger than its topic takes, for longer", faults.refused_by_size),
    Case("HeartbeatMissing", "page", "the broker frozen", faults.kafka_frozen, KAFKA_AWAY),
    Case("SpoolInUse", "ticket", "the broker killed while deliveries come in", faults.kafka_killed, KAFKA_AWAY),
    Case("SpoolFillingUp", "page", "a quarter of the spool filled in seconds", faults.spool_filling, KAFKA_AWAY),
    Case("EventLoopLate", "ticket", "the ingress frozen for 2.5 s", faults.ingress_late, INGRESS_AWAY),
    Case("HeartbeatMissing", "page", "the ingress killed", faults.ingress_down, INGRESS_AWAY),
    Case("DedupeNotReady", "ticket", "the ingress started while the broker is frozen", faults.ingress_alone, ALONE),
    Case("SpoolUnreadable", "page", "a bit of the spool flipped while the ingress is down", faults.bit_flipped, ALONE),
)
# Last, since they spend budgets.
BUDGETS = (
    Case("ConsumerStuck", "page", "the database frozen", faults.database_frozen, DATABASE_AWAY),
    Case("SinkCircuitOpen", "ticket", "the database killed", faults.database_killed, DATABASE_AWAY),
    Case(
        "IngressErrorBudgetBurnFast",
        "page",
        "the broker frozen until the spool is full",
        faults.spool_full,
        {**KAFKA_AWAY, "SpoolFillingUp": "it is full at last"},
    ),
)
CASES = (*DELIVERIES, *CONSUMERS, *DURABILITY, *BUDGETS)
