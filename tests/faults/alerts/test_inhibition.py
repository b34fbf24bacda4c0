"""With the sample for Alertmanager one cause pages once, and other causes still page."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.debian import find, lacking
from tests.faults.alerts.cases import DATABASE_AWAY, KAFKA_AWAY
from tests.faults.alerts.servers import SAMPLE, Alertmanager, alerting
from tests.integration.service_process import until
from tests.monitoring.queries import alerts

SERVICES = ("read_model", "fhir")
# Of a rule that reads what consumers record, `service`; else what its expression keeps, or all of an instance.
LABELS = {
    each.name: re.findall(r"by \(([^)]*)\)", each.expr.replace("slo", "by (service)")) or ["instance"]
    for each in alerts()
}


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    if find("alertmanager") is None:
        pytest.skip(lacking("alertmanager"))
    with alerting(tmp_path / "sample", SAMPLE) as one:
        yield one


def fired(names: Iterable[str], severity: str = "page", **more: str) -> list[dict[str, str]]:
    values = {"namespace": "rx", "topic": "t", "code": "c", "instance": "i"} | more
    return [
        {"alertname": name, "severity": severity, "namespace": values["namespace"]}
        | {
            label: (values | {"service": service, "partition": partition}).get(label, "")
            for label in LABELS[name][0].split(", ")
        }
        for name in names
        for service in SERVICES
        for partition in "012"
    ]


@pytest.mark.parametrize(
    ("cause", "symptoms", "tickets"),
    [("HeartbeatMissing", [*KAFKA_AWAY], ["SpoolInUse"]), ("ConsumerStuck", DATABASE_AWAY, ["OutboxStuck"])],
)
def test_one_cause_pages_once(
    alertmanager: Alertmanager, cause: str, symptoms: Iterable[str], tickets: Iterable[str]
) -> None:
    others = [*fired(["SafetySignal"]), *fired(["HeartbeatMissing", "SpoolFillingUp"], namespace="elsewhere")]
    alertmanager.post([*fired({*symptoms, cause}), *fired(tickets, "ticket"), *others])

    def through() -> set[tuple[str, str]]:
        return {(each["alertname"], each["namespace"]) for each in alertmanager.firing()}

    until(lambda: through() == {(cause, "rx")} | {(e["alertname"], e["namespace"]) for e in others}, what="inhibition")


def test_the_sample_names_alerts_that_there_are() -> None:
    matchers = [each for rule in SAMPLE["inhibit_rules"] for key in rule if key != "equal" for each in rule[key]]
    matchers += SAMPLE["route"]["routes"][0]["routes"][0]["matchers"]
    names = {word for each in matchers if each.startswith("alertname") for word in re.findall(r"[A-Z.][\w.*]+", each)}

    assert names
    there = {each.name for each in alerts()}
    assert [name for name in names if not any(re.fullmatch(name, each) for each in there)] == []
