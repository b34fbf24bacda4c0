"""Any values that the schema allows are refused with a way out, or become what the programs start with."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from bridge.settings import load_settings
from bridge.start_checks import check_start
from consumers.archive.options import NAME as ARCHIVE_NAME
from consumers.archive.options import ArchiveOptions
from consumers.fhir.options import NAME as FHIR_NAME
from consumers.fhir.options import FhirOptions
from consumers.forward.options import NAME as FORWARD_NAME
from consumers.forward.options import ForwardOptions
from consumers.hl7v2.options import NAME as HL7V2_NAME
from consumers.hl7v2.options import Hl7Options
from consumers.options import read_options
from consumers.read_model.options import NAME, ReadModelOptions
from consumers.settings import load_settings as load_consumer_settings
from consumers.workflow.options import NAME as WORKFLOW_NAME
from consumers.workflow.options import WorkflowOptions
from tests.chart.environment import variables
from tests.chart.rendering import RefusedError, Rendered, Values, load, merged, render

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8})?", fullmatch=True)
MAYBE = st.one_of(st.just(""), NAMES)
SECONDS = st.one_of(st.integers(1, 120), st.floats(0.5, 120).map(lambda value: round(value, 2)))


def some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Values]:
    """Give tables with any of the parts."""
    return st.fixed_dictionaries({}, optional=parts)


SOURCES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,5})?", fullmatch=True),
    st.fixed_dictionaries(
        {"profile": st.just("drx_standard"), "environment": st.sampled_from(["sandbox", "production"])},
        optional={
            "existingSecret": MAYBE,
            "toleranceS": st.one_of(st.just("off"), st.integers(1, 86_400)),
            "dedupeWindowS": st.integers(60, 2_592_000),
            "options": st.dictionaries(st.sampled_from(["zone", "states"]), st.text(max_size=8)),
            "mappingConfigMap": MAYBE,
        },
    ),
    max_size=3,
)
SCALING = {"enabled": st.booleans(), "minReplicas": st.integers(1, 20), "maxReplicas": st.integers(1, 20)}
INGRESS = some(
    enabled=st.booleans(),
    replicas=st.integers(1, 20),
    sources=SOURCES,
    http=some(deadlineS=SECONDS, bodyMaxBytes=st.integers(1, 16_777_216), inflightMaxBytes=st.integers(1024, 2**40)),
    spool=some(
        enabled=st.booleans(),
        afterS=SECONDS,
        capacityBytes=st.integers(1_048_576, 2**35),
        volume=some(sizeGi=st.integers(0, 4096)),
    ),
    log=some(level=st.sampled_from(["debug", "info"])),
    preStopSleepS=st.integers(5, 30),
    shutdown=some(drainS=SECONDS, flushS=SECONDS, graceS=st.integers(1, 200)),
    kafka=some(credentialsSecret=MAYBE, clientCertificateSecret=MAYBE),
    httpRoute=some(enabled=st.booleans()),
    hpa=some(**SCALING),
)
READ_MODEL = some(
    enabled=st.booleans(),
    replicas=st.integers(1, 20),
    options=some(schema=st.sampled_from(["read_model", "read_model_2"]), batch_records=st.integers(1, 5000)),
    kafka=some(credentialsSecret=MAYBE, sessionS=st.integers(6, 1800), rebalanceS=SECONDS),
    shutdown=some(drainS=SECONDS, commitS=SECONDS, graceS=st.integers(1, 200)),
    hpa=some(**SCALING),
    keda=some(**SCALING),
)
FORWARD = some(
    enabled=st.booleans(),
    replicas=st.integers(1, 20),
    options=some(
        instance=st.from_regex(r"([a-z0-9]{1,5}(-[a-z0-9]{1,3})?)?", fullmatch=True),
        url=st.sampled_from(["https://ehr.example.test/drx/", "http://ehr.example.test"]),
        allow_http=st.booleans(),
        lanes=st.integers(1, 256),
        timeout_s=st.floats(0.1, 60).map(lambda value: round(value, 2)),
    ),
    endpoint=some(signingSecret=MAYBE, caSecret=MAYBE, clientCertificateSecret=MAYBE, headersSecret=MAYBE),
    instances=st.dictionaries(
        st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,3})?", fullmatch=True),
        st.fixed_dictionaries(
            {
                "options": some(url=st.just("https://lab.example.test/drx"), lanes=st.integers(1, 256)),
                "endpoint": some(signingSecret=MAYBE, headersSecret=MAYBE),
            },
            optional={"replicas": st.integers(1, 20)},
        ),
        max_size=2,
    ),
    postgres=st.just({"existingSecret": "drx-forward-postgres"}),
    kafka=some(credentialsSecret=MAYBE),
    keda=some(**SCALING),
)
FHIR = some(
    enabled=st.booleans(),
    replicas=st.integers(1, 20),
    options=some(
        instance=st.from_regex(r"([a-z0-9]{1,5}(-[a-z0-9]{1,3})?)?", fullmatch=True),
        base_url=st.sampled_from(["https://ehr.example.test/fhir", "http://ehr.example.test"]),
        allow_http=st.booleans(),
        bundle=st.booleans(),
        smart_token_url=st.just("https://ehr.example.test/token"),
        smart_client_id=st.sampled_from(["", "drx"]),
        mrn_system=st.sampled_from(["", "urn:oid:1.2.36", "https://ehr.example.test/mrn"]),
        lanes=st.integers(1, 64),
        timeout_s=st.floats(0.1, 60).map(lambda value: round(value, 2)),
    ),
    server=some(tokenSecret=MAYBE, smartKeySecret=MAYBE, caSecret=MAYBE, clientCertificateSecret=MAYBE),
    postgres=st.just({"existingSecret": "drx-fhir-postgres"}),
    kafka=some(credentialsSecret=MAYBE),
    keda=some(**SCALING),
)
HL7V2 = some(
    enabled=st.booleans(),
    options=some(
        instance=st.from_regex(r"([a-z0-9]{1,5}(-[a-z0-9]{1,3})?)?", fullmatch=True),
        host=st.sampled_from(["engine.example.test", "10.0.0.7"]),
        port=st.integers(1, 65_535),
        allow_plaintext=st.booleans(),
        connections=st.integers(1, 64),
        ack_timeout_s=st.floats(0.1, 60).map(lambda value: round(value, 2)),
        assigner=st.sampled_from(["", "CLINIC"]),
    ),
    receiver=some(caSecret=MAYBE, clientCertificateSecret=MAYBE),
    postgres=st.just({"existingSecret": "drx-hl7v2-postgres"}),
    kafka=some(credentialsSecret=MAYBE),
    keda=some(**SCALING),
)
ARCHIVE = some(
    enabled=st.booleans(),
    options=some(
        root=st.sampled_from(["s3://lake", "s3://lake-example/of/drx"]),
        endpoint=st.sampled_from(["https://s3.example.test:9000", "http://s3.example.test"]),
        region=st.sampled_from(["", "eu-central-1"]),
        allow_http=st.booleans(),
        schema=st.sampled_from(["archive", "archive_2"]),
        raw=st.booleans(),
        batch_records=st.integers(1, 20_000),
        wait_s=st.floats(0.05, 240).map(lambda value: round(value, 2)),
        columns=st.sampled_from(["all", "no_d", "hashed"]),
    ),
    lake=some(existingClaim=MAYBE, credentialsSecret=MAYBE, hashKeySecret=MAYBE),
    postgres=st.just({"existingSecret": "drx-archive-postgres"}),
    kafka=some(credentialsSecret=MAYBE),
    keda=some(**SCALING),
)
WORKFLOW = some(
    enabled=st.booleans(),
    options=some(
        instance=st.from_regex(r"([a-z0-9]{1,5}(-[a-z0-9]{1,3})?)?", fullmatch=True),
        address=st.sampled_from(["temporal.example.test:7233", "10.0.0.8:443"]),
        allow_plaintext=st.booleans(),
        payload=st.sampled_from(["ids", "full"]),
        timers=st.sampled_from(["on", "off"]),
        timeout_s=st.floats(0.1, 60).map(lambda value: round(value, 2)),
    ),
    temporal=some(tlsSecret=MAYBE, apiKeySecret=MAYBE, codecKeySecret=MAYBE, rulesConfigMap=MAYBE),
    postgres=st.just({"existingSecret": "drx-workflow-postgres"}),
    kafka=some(credentialsSecret=MAYBE),
    keda=some(**SCALING),
)
VALUES = some(
    nameOverride=MAYBE,
    accept=st.lists(st.sampled_from(["plaintext_kafka", "debug_log"]), unique=True),
    kafka=some(
        securityProtocol=st.sampled_from(["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
        partitions=st.integers(1, 24),
        messageMaxBytes=st.integers(1_048_588, 67_108_864),
        routes=st.dictionaries(st.from_regex(r"[a-z.]{1,10}", fullmatch=True), st.just("drx.alerts.v1"), max_size=2),
    ),
    registry=some(url=st.sampled_from(["", "https://registry.example.test"])),
    ingress=INGRESS,
    consumers=some(read_model=READ_MODEL, forward=FORWARD, fhir=FHIR, hl7v2=HL7V2, archive=ARCHIVE, workflow=WORKFLOW),
    networkPolicy=some(enabled=st.booleans()),
    monitoring=some(
        monitor=st.sampled_from(["auto", "never", "PodMonitor", "ServiceMonitor"]), dashboards=st.booleans()
    ),
    heartbeatTest=some(enabled=st.booleans()),
)


@settings(max_examples=40)
@given(over=VALUES)
def test_values_are_refused_with_a_way_out_or_work(over: Values) -> None:
    values = merged(load("minimal"), over)
    rendered, problems = attempt(values)
    if rendered is None:
        event("refused")
        assert [line for line in problems if line.startswith("  - ")], f"refused by Helm and not by us: {problems}"
        return

    event("rendered")
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.objects]
    assert len(set(names)) == len(names)
    check_that_the_programs_start(rendered)


def attempt(values: Values) -> tuple[Rendered | None, list[str]]:
    try:
        return render(values), []
    except RefusedError as exc:
        return None, str(exc).splitlines()


def check_that_the_programs_start(rendered: Rendered) -> None:
    """What the chart has let through, the programs must not refuse: a pod that cannot start is found too late."""
    for name, pod in rendered.pods():
        found = variables(rendered, pod, pod_name="pod-0")
        before = dict(os.environ)
        os.environ |= found
        try:
            if name.partition("/")[0] in {"StatefulSet", "Deployment"} and name.endswith("ingress"):
                settings = load_settings()
                assert settings.sources
                # Of a file on a mount that is not here nothing can be found.
                found_risks = [each for each in check_start(settings) if each.check == "risks"]
                assert all("spool" in each.says for each in found_risks if each.verdict == "failed")
            elif "-forward" in name:
                given = load_consumer_settings([FORWARD_NAME]).options(FORWARD_NAME)
                read_options(ForwardOptions, FORWARD_NAME, given)
            elif "-fhir" in name:
                given = load_consumer_settings([FHIR_NAME]).options(FHIR_NAME)
                smart = read_options(FhirOptions, FHIR_NAME, given).smart
                assert smart is None or found["CONSUMER_FHIR__SMART_KEY_FILE"] == str(smart[2])
            elif "-hl7v2" in name:
                read_options(Hl7Options, HL7V2_NAME, load_consumer_settings([HL7V2_NAME]).options(HL7V2_NAME))
            elif "-archive" in name:
                read_options(ArchiveOptions, ARCHIVE_NAME, load_consumer_settings([ARCHIVE_NAME]).options(ARCHIVE_NAME))
            elif "-workflow" in name:
                given = load_consumer_settings([WORKFLOW_NAME]).options(WORKFLOW_NAME)
                read_options(WorkflowOptions, WORKFLOW_NAME, given)
            elif found:
                read_options(ReadModelOptions, NAME, load_consumer_settings([NAME]).options(NAME))
        finally:
            for variable in found:
                del os.environ[variable]
            os.environ |= before
