"""Values that cannot work are refused before anything is installed, by name and with what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, reduce
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.ingress.profiles.lookup import SHIPPED
from bridge.ingress.schemes.presets import KINDS, PRESETS
from tests.chart.rendering import CHART, RefusedError, Values, changed, load, render, rendered_anew
from tests.chart.schema import is_refused, members
from tests.chart.verdicts import verdicts

SECRETS = {path for path, schema in members() if is_refused(schema)}
READER = "consumers.read_model"
FORWARD = "consumers.forward"
FHIR = "consumers.fhir"
HL7V2 = "consumers.hl7v2"
ARCHIVE = "consumers.archive"
WORKFLOW = "consumers.workflow"
ON, OFF = True, False
SELECTED = [f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")]

STORE_OF_T = {"externalSecrets": {"storeRef": {"name": "vault"}, "secrets": {"t": {"keys": {"tocken": {"key": "a"}}}}}}

# Which case, what is changed in it, the value that is named, and the way out that is named with it.
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("minimal", {"image.repository": ""}, "image.repository", "name the repository"),
    ("minimal", {"image.digest": ""}, "image.digest", "name the image by digest"),
    ("minimal", {"commonLabels": {"helm.sh/chart": "x"}}, "commonLabels", "is the chart's own"),
    ("minimal", {"ingress.service.type": "LoadBalancer"}, "ingress.service.type", "ingress.http.tlsInFront"),
    ("minimal", {"ingress.extraEnv": [{"name": "BRIDGE_INSTANCE", "value": "a"}]}, "ingress.extraEnv", "take it out"),
    (
        "minimal",
        {"externalSecrets.secrets": {"drx-webhook": {"extract": "a"}}},
        "externalSecrets.storeRef.name",
        "name the SecretStore",
    ),
    (
        "full",
        {"externalSecrets.secrets.drx-ingress-kafka.keys": {"username": {"key": "a"}, "pasword": {"key": "a"}}},
        "externalSecrets.secrets.drx-ingress-kafka.keys",
        "has no password, which ingress reads; it has pasword, username",
    ),
    *(
        (
            "minimal",
            {"externalSecrets": {"storeRef": {"name": "vault"}, "secrets": {name: {"keys": {"other": {"key": "a"}}}}}},
            f"externalSecrets.secrets.{name}.keys",
            f"has no {key}, which {path} reads",
        )
        for name, key, path in (
            ("drx-webhook", "current", "ingress"),
            ("drx-spool-key", "current", "ingress"),
            ("drx-read-model-postgres", "dsn", READER),
        )
    ),
    ("fhir", {f"{FHIR}.server.tokenSecret": "t", **STORE_OF_T}, "externalSecrets.secrets.t.keys", "has no token"),
    ("full", {"externalSecrets.secrets.drx-webhook": {}}, "externalSecrets.secrets.drx-webhook", "either extract or"),
    (
        "full",
        {"consumerDefaults.serviceAccount.name": "all"},
        f"{FORWARD}.serviceAccount.name",
        "bring one for all",
    ),
    (
        "minimal",
        {"topicsJob": {"enabled": ON}, "ingress.kafka": {}},
        "topicsJob.credentialsSecret",
        "may create topics",
    ),
    (
        "minimal",
        {"topicsJob": {"enabled": ON, "replicationFactor": 2, "minInsyncReplicas": 3}},
        "topicsJob.minInsyncReplicas",
        "must not exceed",
    ),
    (
        "full",
        {"consumers.eligible.postgres.dsn": "postgresql://x@db"},
        "consumers.eligible.postgres.dsn",
        "existingSecret",
    ),
    ("full", {"consumers.eligible.image": {"repository": "a"}}, "consumers.eligible.image.digest", "image.tag"),
    ("full", {"consumers.eligible.image.repository": ""}, "consumers.eligible.image.repository", "name the repository"),
    (
        "minimal",
        {"monitoring.alerts": {"SinkCircuitOpn": {"enabled": OFF}}},
        "monitoring.alerts.SinkCircuitOpn",
        "there is no such alert; name one of SignatureFailureSpike, SinkCircuitOpen",
    ),
    (
        "minimal",
        {"monitoring.alerts": {"XpoolStuck": {}}},
        "monitoring.alerts.XpoolStuck",
        "there is no such alert; name one of ArchiveLate, ClockSkewSuspected, ",
    ),
    (
        "minimal",
        {"monitoring.alerts": {"SpoolStuck": {"threshold": 1}}},
        "monitoring.alerts.SpoolStuck.threshold",
        "monitoring.extraRules",
    ),
    (
        "minimal",
        {"monitoring": {"dashboards": OFF, "grafanaOperator": {"enabled": ON}}},
        "monitoring.grafanaOperator.enabled",
        "set monitoring.dashboards to true",
    ),
    ("strimzi", {"topicsJob.enabled": ON}, "topicsJob.enabled", "set one of"),
    (
        "strimzi",
        {"topicsJob.enabled": ON, "strimzi.topics": OFF, "kafka.securityProtocol": "SSL"},
        "topicsJob.clientCertificateSecret",
        "may create topics",
    ),
    ("strimzi", {"strimzi.minInsyncReplicas": 4}, "strimzi.minInsyncReplicas", "must not exceed"),
    ("strimzi", {"strimzi.namespace": "kafka"}, "strimzi.users", "copy Secrets"),
    ("strimzi", {"kafka.saslMechanism": "PLAIN"}, "kafka.saslMechanism", "SCRAM-SHA-512"),
    *(
        (
            "strimzi",
            {"kafka.securityProtocol": protocol, f"{READER}.keda.enabled": ON},
            f"{READER}.keda.enabled",
            f"set {READER}.kafka.{secret}",
        )
        for protocol, secret in (("SASL_SSL", "credentialsSecret"), ("SSL", "clientCertificateSecret"))
    ),
    ("minimal", {"kafka.tokenUrl": "https://a.test"}, "kafka.tokenUrl", "take kafka.tokenUrl"),
    ("minimal", {"kafka.saslMechanism": "OAUTHBEARER"}, "kafka.tokenUrl", "name the token endpoint"),
    ("minimal", {"kafka.bootstrapServers": ""}, "kafka.bootstrapServers", "give host:port"),
    ("minimal", {"ingress.sources": {}}, "ingress.sources", "name at least one sender"),
    ("minimal", {"ingress.sources.drx.existingSecret": ""}, "ingress.sources.drx.existingSecret", "name the Secret"),
    ("minimal", {"ingress.sources.drx.secret": "whsec_x"}, "ingress.sources.drx.secret", "existingSecret"),
    ("minimal", {"ingress.sources.drx.profile": "drx-standard"}, "ingress.sources.drx.profile", "drx_standard"),
    ("minimal", {"ingress.sources.drx.profile": "x"}, "ingress.sources.drx.profile", "ownProfile to true"),
    ("minimal", {"ingress.sources.drx.ownProfile": ON}, "ingress.sources.drx.ownProfile", "take it out"),
    ("minimal", {"ingress.sources.drx.scheme": "basic+gitub"}, "ingress.sources.drx.scheme", "github"),
    ("minimal", {"consumers.fihr": {"enabled": ON}}, "consumers.fihr.name", "is not a shipped consumer"),
    ("minimal", {"kafka.password": "x"}, "kafka.password", "credentialsSecret"),
    ("minimal", {"registry.password": "x"}, "registry.password", "credentialsSecret"),
    ("minimal", {"registry.url": "https://me:x@registry"}, "registry.url", "credentialsSecret"),
    ("minimal", {"ingress.spool.key": "spk_x"}, "ingress.spool.key", "keySecret"),
    ("minimal", {"logIds.key": "x"}, "logIds.key", "keySecret"),
    ("minimal", {f"{READER}.postgres.dsn": "postgresql://me:x@db"}, f"{READER}.postgres.dsn", "existingSecret"),
    ("minimal", {"consumerDefaults.postgres.dsn": "postgresql://me:x@db"}, f"{READER}.postgres.dsn", "existingSecret"),
    ("minimal", {f"{READER}.postgres.existingSecret": ""}, f"{READER}.postgres.existingSecret", "enabled to false"),
    ("forward", {f"{FORWARD}.postgres.dsn": "postgresql://me:x@db"}, f"{FORWARD}.postgres.dsn", "existingSecret"),
    ("forward", {f"{FORWARD}.postgres.existingSecret": ""}, f"{FORWARD}.postgres.existingSecret", "enabled to false"),
    ("forward", {f"{FORWARD}.options": {}}, f"{FORWARD}.options.url", "name the endpoint"),
    ("forward", {f"{FORWARD}.options.url": "http://ehr.example.test"}, f"{FORWARD}.options.url", "allow_http"),
    ("forward", {f"{FORWARD}.instances.lab.options": {}}, f"{FORWARD}.instances.lab.options.url", "name the endpoint"),
    (
        "forward",
        {f"{FORWARD}.instances.lab.endpoint": {}},
        f"{FORWARD}.instances.lab.endpoint.signingSecret",
        "name the Secret",
    ),
    (
        "forward",
        {f"{FORWARD}.instances.lab.options.instance": "lab"},
        f"{FORWARD}.instances.lab.options.instance",
        "take it out",
    ),
    ("forward", {f"{FORWARD}.options.instance": "lab"}, f"{FORWARD}.instances.lab", "choose another name"),
    ("forward", {f"{FORWARD}.endpoint.signingSecret": ""}, f"{FORWARD}.endpoint.signingSecret", "name the Secret"),
    ("fhir", {f"{FHIR}.postgres.dsn": "postgresql://me:x@db"}, f"{FHIR}.postgres.dsn", "existingSecret"),
    ("fhir", {f"{FHIR}.postgres.existingSecret": ""}, f"{FHIR}.postgres.existingSecret", "enabled to false"),
    ("fhir", {f"{FHIR}.options": {}}, f"{FHIR}.options.base_url", "name the base URL"),
    ("hl7v2", {f"{HL7V2}.postgres.dsn": "postgresql://me:x@db"}, f"{HL7V2}.postgres.dsn", "existingSecret"),
    ("hl7v2", {f"{HL7V2}.postgres.existingSecret": ""}, f"{HL7V2}.postgres.existingSecret", "enabled to false"),
    ("hl7v2", {f"{HL7V2}.options": {}}, f"{HL7V2}.options.host", "name the host of the receiver"),
    ("hl7v2", {f"{HL7V2}.options": {}}, f"{HL7V2}.options.port", "name the port of the receiver"),
    ("archive", {f"{ARCHIVE}.postgres.dsn": "postgresql://me:x@db"}, f"{ARCHIVE}.postgres.dsn", "existingSecret"),
    ("archive", {f"{ARCHIVE}.postgres.existingSecret": ""}, f"{ARCHIVE}.postgres.existingSecret", "enabled to false"),
    ("archive", {f"{ARCHIVE}.lake": {}}, f"{ARCHIVE}.lake.existingClaim", "name the PersistentVolumeClaim"),
    ("archive", {f"{ARCHIVE}.options.root": "s3://lake"}, f"{ARCHIVE}.lake.existingClaim", "take one of them out"),
    ("archive", {f"{ARCHIVE}.options.region": "eu-central-1"}, f"{ARCHIVE}.options.root", "belong to a bucket"),
    ("full", {f"{ARCHIVE}.options.endpoint": "http://s3.test"}, f"{ARCHIVE}.options.endpoint", "allow_http"),
    ("full", {f"{ARCHIVE}.lake.hashKeySecret": ""}, f"{ARCHIVE}.lake.hashKeySecret", "makes the digests"),
    ("full", {f"{ARCHIVE}.options.raw": ON}, f"{ARCHIVE}.options.raw", "raw bodies identify persons"),
    (
        "archive",
        {f"{ARCHIVE}.options.batch_records": 20_000},
        f"{ARCHIVE}.resources.limits.memory",
        "do not hold three batches of consumers.archive.options.batch_records, at least 961Mi",
    ),
    ("workflow", {f"{WORKFLOW}.postgres.dsn": "postgresql://me:x@db"}, f"{WORKFLOW}.postgres.dsn", "existingSecret"),
    (
        "workflow",
        {f"{WORKFLOW}.postgres.existingSecret": ""},
        f"{WORKFLOW}.postgres.existingSecret",
        "enabled to false",
    ),
    ("workflow", {f"{WORKFLOW}.options": {}}, f"{WORKFLOW}.options.address", "name the frontend of Temporal"),
    ("workflow", {f"{WORKFLOW}.options.payload": "full"}, f"{WORKFLOW}.temporal.codecKeySecret", "payload is full"),
    ("fhir", {f"{FHIR}.options.base_url": "http://ehr.example.test"}, f"{FHIR}.options.base_url", "allow_http"),
    *(
        ("fhir", {f"{FHIR}.{path}": value for path, value in given}, f"{FHIR}.server.smartKeySecret", "set all three")
        for given in (
            [("server.smartKeySecret", "a"), ("server.tokenSecret", "")],
            [("options.smart_token_url", "https://a.test"), ("options.smart_client_id", "a")],
            [
                ("options.smart_token_url", "https://a.test"),
                ("options.smart_client_id", "a"),
                ("server.smartKeySecret", "a"),
                ("server.tokenSecret", "a"),
            ],
        )
    ),
    ("minimal", {"ingress.spool.keySecret": ""}, "ingress.spool.keySecret", "name a Secret"),
    ("minimal", {"ingress.spool.volume.sizeGi": 0}, "ingress.spool.volume.sizeGi", "give the volume a size"),
    ("minimal", {"ingress.spool.volume.sizeGi": 1}, "ingress.spool.volume.sizeGi", "enlarge the volume"),
    ("no-spool", {"ingress.spool.drainClaims": ["data-a-0"]}, "ingress.spool.keySecret", "drainClaims"),
    (
        "minimal",
        {"ingress.spool.drainClaims": ["data-drx-drx-bridge-ingress-2"]},
        "ingress.spool.drainClaims",
        "lower ingress.replicas",
    ),
    ("minimal", {"ingress.hpa.enabled": ON}, "ingress.hpa.enabled", "set ingress.replicas"),
    (
        "ingress-only",
        {"ingress.kubernetesIngress": {"enabled": ON, "host": "a.test", "tlsSecret": "a"}},
        "ingress.kubernetesIngress.enabled",
        "set one of",
    ),
    ("ingress-only", {"ingress.httpRoute.parentRefs": []}, "ingress.httpRoute.parentRefs", "name the Gateway"),
    ("ingress-class", {"ingress.kubernetesIngress.tlsSecret": ""}, "ingress.kubernetesIngress", "tlsSecret"),
    ("minimal", {"kafka.securityProtocol": "SASL_PLAINTEXT"}, "kafka.securityProtocol", "set SSL or SASL_SSL"),
    ("keda-plain", {"accept": []}, "kafka.securityProtocol", "add plaintext_kafka to accept"),
    ("minimal", {"ingress.log.level": "debug"}, "ingress.log.level", "add debug_log to accept"),
    ("minimal", {f"{READER}.log.level": "debug"}, f"{READER}.log.level", "add debug_log to accept"),
    ("minimal", {"kafka.securityProtocol": "SSL"}, "ingress.kafka.credentialsSecret", "leave this empty"),
    ("minimal", {"ingress.kafka.credentialsSecret": ""}, "ingress.kafka.credentialsSecret", "name a Secret"),
    ("minimal", {f"{READER}.kafka.credentialsSecret": ""}, f"{READER}.kafka.credentialsSecret", "name a Secret"),
    ("sandbox", {"kafka.caSecret": "ca"}, "kafka.caSecret", "SSL or SASL_SSL"),
    ("sandbox", {"ingress.kafka.clientCertificateSecret": "c"}, "ingress.kafka.clientCertificateSecret", "SASL_SSL"),
    ("minimal", {"ingress.registry.credentialsSecret": "r"}, "ingress.registry.credentialsSecret", "set registry.url"),
    ("no-spool", {"ingress.hpa.minReplicas": 21}, "ingress.hpa.minReplicas", "must not exceed"),
    ("keda", {f"{READER}.hpa.enabled": ON}, f"{READER}.keda.enabled", "set one of"),
    ("keda", {f"{READER}.keda.maxReplicas": 25}, f"{READER}.keda.maxReplicas", "lower it"),
    ("keda", {f"{READER}.keda.minReplicas": 25}, f"{READER}.keda.minReplicas", "must not exceed"),
    ("consumer-hpa", {f"{READER}.hpa.maxReplicas": 13}, f"{READER}.hpa.maxReplicas", "lower it"),
    ("minimal", {f"{READER}.replicas": 13}, f"{READER}.replicas", "lower it"),
    ("minimal", {"ingress.spool.afterS": 4}, "ingress.spool.afterS", "less than"),
    ("minimal", {"ingress.http.deadlineS": 15}, "ingress.shutdown.drainS", "more than"),
    ("minimal", {"ingress.preStopSleepS": 20}, "ingress.shutdown.graceS", "more than"),
    ("minimal", {f"{READER}.kafka.sessionS": 600}, f"{READER}.kafka.sessionS", "less than"),
    ("minimal", {f"{READER}.kafka.rebalanceS": 35}, f"{READER}.kafka.rebalanceS", "more than"),
    ("minimal", {f"{READER}.shutdown.graceS": 39}, f"{READER}.shutdown.graceS", "at least"),
    ("minimal", {"ingress.dedupe.capacity": 20_000_000}, "ingress.resources.limits.memory", "lower one of these"),
    ("minimal", {"ingress.http.bodyMaxBytes": 2**21}, "ingress.http.bodyMaxBytes", "kafka.messageMaxBytes"),
    ("minimal", {"ingress.http.inflightMaxBytes": 2**30}, "ingress.resources.limits.memory", "lower one of these"),
    ("minimal", {"ingress.resources.limits.memory": "350M"}, "ingress.resources.limits.memory", "at least 351Mi"),
    ("no-spool", {"ingress.resources.limits.memory": "330M"}, "ingress.resources.limits.memory", "at least 328Mi"),
    (
        "minimal",
        {"ingress.spool": {"capacityBytes": 2**36, "keySecret": "drx-spool-key", "volume": {"sizeGi": 80}}},
        "ingress.resources.limits.memory",
        "the index of ingress.spool.capacityBytes",
    ),
    *(
        ("minimal", {f"{component}.{table}": {key: "x"}}, f"{component}.{table}", f"{key} is the chart's own")
        for component in ("ingress", READER)
        for table, keys in (("podLabels", SELECTED), ("podAnnotations", ["checksum/config"]))
        for key in keys
    ),
    *(
        ("minimal", {f"monitoring.{table}": {"helm.sh/chart": "x"}}, f"monitoring.{table}", "is the chart's own")
        for table in ("labels", "rulesLabels", "dashboardsLabels")
    ),
    ("minimal", {"heartbeatTest.source": "nobody"}, "heartbeatTest.source", "name one of"),
    *(
        ("two-senders", {f"ingress.sources.drx_trial.{name}": value}, "heartbeatTest.source", "drx_trial does not take")
        for name, value in (("profile", "photon_cloudevents"), ("scheme", "github"))
    ),
]


def values_of(case: str, changes: dict[str, Any]) -> Values:
    """Return a case with some values set."""
    return reduce(lambda values, change: changed(values, *change), changes.items(), load(case))


def lines(said: str) -> list[str]:
    """Return the problems of a refusal."""
    return [line.strip().removeprefix("- ") for line in said.splitlines() if line.startswith("  - ")]


def refused(case: str, changes: dict[str, Any], *, major: int) -> list[str]:
    """What is said, one problem a line."""
    with pytest.raises(RefusedError) as caught:
        render(values_of(case, changes), major=major)
    return lines(str(caught.value))


@cache
def said(major: int) -> list[str]:
    """What is said of each that is refused."""
    return verdicts([values_of(case, changes) for case, changes, _, _ in REFUSED], major=major)


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(
    ("number", "named", "way_out"), [(number, named, way_out) for number, (_, _, named, way_out) in enumerate(REFUSED)]
)
def test_what_cannot_work_is_refused_with_the_way_out(number: int, named: str, way_out: str, major: int) -> None:
    verdict = said(major)[number]

    assert [each for each in lines(verdict) if each.startswith(f"{named}: ") and way_out in each], verdict


def test_every_secret_that_somebody_might_write_down_is_refused() -> None:
    tried = {re.sub(r"\.(drx|eligible)\.", ".<name>.", path) for _, changes, _, _ in REFUSED for path in changes}

    assert SECRETS - tried == set()
    assert len(SECRETS) == 13


def test_no_refusal_repeats_a_secret() -> None:
    for path in ("kafka.password", "registry.password", "ingress.spool.key", "logIds.key", f"{READER}.postgres.dsn"):
        assert "canary" not in "".join(refused("minimal", {path: "canary"}, major=4))
    assert "canary" not in "".join(refused("minimal", {"registry.url": "https://me:canary@registry"}, major=4))


@pytest.mark.parametrize("major", [3, 4])
def test_all_problems_are_told_at_once(major: int) -> None:
    changes = {"image.digest": "", "ingress.sources": {}, "kafka.bootstrapServers": ""}

    assert len(refused("minimal", changes, major=major)) == 3


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ingres", {}),
        ("ingress.replica", 2),
        ("consumers.mine", {"name": "forward"}),
        ("consumers.mine", {"name": "workflow"}),
        ("consumers.mine", {"name": "mine", "option": {}}),
        ("consumers.much_too_long", {"name": "mine"}),
        ("consumers.read_model.options.batch", 2),
        ("ingress.replicas", "2"),
        ("ingress.sources", {"Drx": {"profile": "drx_standard", "environment": "sandbox", "existingSecret": "a"}}),
        ("ingress.sources.drx.environment", "test"),
        ("image.digest", "sha256:123"),
        ("kafka.bootstrapServers", "kafka.example.test"),
        ("ingress.resources.requests.memory", "lots"),
        # Rates over minutes would have one value or none, and alerts would never fire.
        ("monitoring.intervalS", 61),
    ],
)
def test_a_value_that_is_no_value_is_refused_by_the_schema(path: str, value: Any, major: int) -> None:
    with pytest.raises(RefusedError, match="schema"):
        render(changed(load("minimal"), path, value), major=major)


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(
    "path",
    [
        "kafka",
        "monitoring",
        "networkPolicy",
        "ingress.http",
        "ingress.spool",
        "ingress.spool.volume",
        "consumerDefaults.kafka",
        "consumers.forward.endpoint",
    ],
)
def test_a_table_that_is_taken_away_is_refused_by_its_name(path: str, major: int) -> None:
    with pytest.raises(RefusedError, match=path.rpartition(".")[2]) as caught:
        render(load("minimal"), "--set", f"{path}=null", major=major)

    assert "schema" in str(caught.value)
    assert "nil pointer" not in str(caught.value)


def test_a_risk_is_offered_only_where_it_can_be_accepted() -> None:
    source = {"profile": "drx_standard", "environment": "production", "existingSecret": "drx-webhook"}
    (problem,) = refused(
        "minimal", {"kafka.securityProtocol": "SASL_PLAINTEXT", "ingress.sources": {"drx": source}}, major=4
    )

    assert "accept" not in problem


def test_a_source_is_offered_every_profile_and_scheme_that_there_is() -> None:
    problems = refused("minimal", {"ingress.sources.drx.profile": "x", "ingress.sources.drx.scheme": "x"}, major=4)
    profiles, schemes = (re.findall(r"name one of (.*), or", each)[0].split(", ") for each in problems)

    assert profiles == [*SHIPPED]
    assert schemes == [*KINDS, *PRESETS]


def test_a_profile_of_a_package_is_taken_where_it_is_said_to_be_one() -> None:
    values = changed(load("minimal"), "ingress.sources.drx.profile", "our_own")

    found = render(changed(values, "ingress.sources.drx.ownProfile", ON)).all("ConfigMap")
    assert "our_own" in [each["data"].get("BRIDGE_SOURCES__DRX__PROFILE") for each in found]


def test_nothing_is_asked_of_what_does_not_run() -> None:
    values = changed(load("ingress-only"), f"{READER}.enabled", OFF)

    assert not render(changed(values, f"{READER}.postgres.existingSecret", "")).all("Deployment")


def _defaults(values: Values, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{before}{name}", value
        if isinstance(value, dict):
            yield from _defaults(value, f"{before}{name}.")


DEFAULTS = dict(_defaults(yaml.safe_load((CHART / "values.yaml").read_text())))


def test_no_table_that_is_taken_away_ends_in_a_template() -> None:
    """`null` in values takes a default away; a nil pointer would name neither it nor a way out."""
    full = load("full")
    ended: list[str] = []
    for path in (path for path, value in DEFAULTS.items() if isinstance(value, dict) and value):
        try:
            rendered_anew(json.dumps(changed(full, path, None)), (), 4)
        except RefusedError as exc:
            if not any(word in str(exc) for word in ("missing property", "cannot be installed")):
                ended.append(path)

    assert ended == []


def test_an_empty_default_that_is_taken_away_is_still_empty() -> None:
    """So is a key of values under which every line is a comment."""
    minimal = load("minimal")
    given = dict(_defaults(minimal))
    empty = [path for path, value in DEFAULTS.items() if value in ("", [], {}) and path not in given]

    assert render(reduce(lambda values, path: changed(values, path, None), empty, minimal)).text == render(minimal).text


def test_a_consumer_that_is_taken_away_is_off() -> None:
    rendered = render(changed(load("minimal"), READER, None))

    assert rendered.all("Deployment") == []
