"""The values, their schema, their use and their documentation are one thing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

from consumers.archive.options import ArchiveOptions
from consumers.fhir.options import FhirOptions
from consumers.forward.options import ForwardOptions
from consumers.hl7v2.options import Hl7Options
from consumers.read_model.options import TOPICS, ReadModelOptions
from consumers.workflow.options import WorkflowOptions
from docs.chart_page import chart_readme
from tests.chart.rendering import CHART, Values, changed, load, render, without
from tests.chart.schema import DEFINITIONS, NAMED, SCHEMA, is_refused, members
from tests.chart.verdicts import DEFAULTS, verdicts

MEMBERS = dict(members())
BY_SCHEMA = re.compile(r"meet the specifications of the schema")
# Helm's own; it hands it to every chart, and this one takes nothing from it.
HELMS = {"global"}
# Optional, and absent unless set: a default would mean something.
CONSUMERS = (
    "consumers.read_model",
    "consumers.forward",
    "consumers.fhir",
    "consumers.hl7v2",
    "consumers.archive",
    "consumers.workflow",
)
# What is not given is that of the release.
OWN_IMAGES = tuple(f"{consumer}.image." for consumer in CONSUMERS)
UNSET = {f"{component}.resources.limits.cpu" for component in ("ingress", "consumerDefaults", *CONSUMERS)}


def declared(path: str) -> str:
    """Return a path as the schema has it."""
    chosen = r"^(ingress\.sources|consumers\.forward\.instances|externalSecrets\.secrets|monitoring\.alerts)\.[\w-]+"
    others = "|".join(each.removeprefix("consumers.") for each in CONSUMERS)
    path = re.sub(rf"^consumers\.(?!(?:{others})\b)\w+", f"consumers.{NAMED}", path)
    return re.sub(r"\.keys\.\w+", f".keys.{NAMED}", re.sub(chosen, rf"\1.{NAMED}", path))


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a file that is no table with names of ours; a list, and a table of labels, count as a whole."""
    inside = {f"{path}.{name}" if path else name: value for name, value in values.items()} if values else {}
    for below, value in inside.items():
        ours = isinstance(value, dict) and value and all(declared(f"{below}.{name}") in MEMBERS for name in value)
        if ours:
            yield from leaves(value, below)
        else:
            yield below, value


def has(values: Any, path: str) -> bool:
    """Tell whether there is such a value, whatever it is; of a consumer, also among what all have in common."""
    return stands(values, path) or stands(values, re.sub(r"^consumers\.\w+", "consumerDefaults", path))


def stands(values: Any, path: str) -> bool:
    """Tell whether a value stands at its own path."""
    name, _, rest = path.partition(".")
    return isinstance(values, dict) and name in values and (not rest or stands(values[name], rest))


def another(path: str, value: Any) -> Any:
    """A value of the same kind that the schema allows there; None to leave it out, where there is but one."""
    schema = MEMBERS[declared(path)]
    if "enum" in schema:
        return next((word for word in schema["enum"] if word != value), None)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if value + 1 <= schema.get("maximum", value + 1) else value - 1
    if isinstance(value, list):
        return [*value, *value]
    if isinstance(value, dict):
        return {**value, next(iter(value)): "other"}
    # A digest and an instant keep their length, a quantity grows at its front, a base before its last character, and
    # all else at its end.
    candidates = (f"{value}x", f"1{value}", f"{value[:-1]}0", value.replace("15:", "16:"), f"{value[:-1]}x{value[-1:]}")
    return next(each for each in candidates if re.search(schema.get("pattern", ""), each) and each != value)


def bases() -> Iterator[tuple[str, Values]]:
    """Give sets of values that have every value and show it, each with where its values stand.

    Every value is in `full`, but it cannot show all at once: what excludes each other has a variant. First come those
    in which one component runs: they take a fraction of the time, and most values are seen there.
    """
    full = load("full")
    by_ingress = changed(changed(full, "ingress.httpRoute.enabled", False), "ingress.kubernetesIngress.enabled", True)  # noqa: FBT003 - a value
    without_spool = changed(changed(full, "ingress.spool.enabled", False), "ingress.hpa.enabled", True)  # noqa: FBT003 - as above
    fixed = changed(full, "consumerDefaults.keda.enabled", False)  # noqa: FBT003 - as above
    by_cpu = changed(fixed, "consumerDefaults.hpa.enabled", True)  # noqa: FBT003 - as above
    unnamed = changed(changed(full, "fullnameOverride", ""), "networkPolicy.dns.to", [])
    strimzi = {**full["strimzi"], "cluster": "events", "namespace": "", "topics": True, "users": True}
    users = dict.fromkeys(("credentialsSecret", "clientCertificateSecret"), "")
    by_strimzi = changed(changed(full, "strimzi", strimzi), "topicsJob.enabled", False)  # noqa: FBT003 - as above
    by_strimzi = changed(
        changed(
            by_strimzi, "kafka", {**full["kafka"], "saslMechanism": "SCRAM-SHA-512", "tokenUrl": "", "tokenScope": ""}
        ),
        "ingress.kafka",
        users,
    )
    for consumer in full["consumers"]:
        yield f"consumers.{consumer}.", only(full, consumer)
    yield "consumerDefaults.", only(full, "read_model")
    yield "", only(full, "ingress")
    for values in (full, by_strimzi, by_ingress, without_spool, by_cpu, fixed, unnamed):
        yield "", values


def only(full: Values, component: str) -> Values:
    """Return the values with one component that runs."""
    values = changed(full, "ingress.enabled", component == "ingress")
    for name in values["consumers"].keys() - {component}:
        values["consumers"][name]["enabled"] = False
    if component != "forward":
        values["consumers"]["forward"]["instances"] = {}
    # `full` shows what is changed in alerts; here all their rules would be read and written each time.
    values["monitoring"] |= {"rules": "never", "alerts": {}}
    return values


def with_another(values: Values, path: str) -> Values:
    """Return a copy in which one value is another."""
    found = another(path, reduce(getitem, path.split("."), values))
    return without(values, path) if found is None else changed(values, path, found)


def unused() -> list[str]:
    """Return every value of which another gives no other render and no refusal by the templates, in any base."""
    left = [path for path, _ in leaves(load("full"))]
    for prefix, base in bases():
        asked = [path for path in left if path.startswith(prefix) and stands(base, path)]
        before, *after = verdicts([base, *(with_another(base, path) for path in asked)])
        assert re.fullmatch(r"[0-9a-f]{64}", before), f"this was to be allowed: {before}"
        refused = [
            f"{path} was to be allowed: {each}"
            for path, each in zip(asked, after, strict=True)
            if BY_SCHEMA.search(each)
        ]
        assert not refused, refused
        seen = {path for path, each in zip(asked, after, strict=True) if each != before}
        left = [path for path in left if path not in seen]
    return left


def test_the_schema_is_closed_everywhere() -> None:
    tables = {"": SCHEMA, **{path: schema for path, schema in MEMBERS.items() if schema.get("type") == "object"}}
    for path, schema in tables.items():
        if path not in HELMS:
            inside = schema.get("additionalProperties")
            # Beside the consumers that ship stand those of others.
            named = "properties" not in schema or path == "consumers"
            assert isinstance(inside, dict) if named else inside is False, path


def test_every_value_says_what_it_means() -> None:
    for path, schema in MEMBERS.items():
        if "properties" not in schema and not path.endswith(NAMED):
            assert schema.get("description"), path


def test_every_definition_is_in_use() -> None:
    text = (CHART / "values.schema.json").read_text()

    assert [name for name in DEFINITIONS if f'"#/definitions/{name}"' not in text] == []


def test_every_value_has_a_default_but_those_that_a_name_or_a_use_brings() -> None:
    optional = (*HELMS, NAMED, *OWN_IMAGES, *(f"{consumer}.options." for consumer in CONSUMERS))
    wanted = [
        path
        for path, schema in MEMBERS.items()
        if "properties" not in schema and not is_refused(schema) and not any(each in path for each in optional)
    ]

    assert len(wanted) > 120
    assert {path for path in wanted if not has(DEFAULTS, path)} == UNSET


def test_the_full_case_has_every_value_and_almost_none_at_its_default() -> None:
    full = load("full")
    wanted = {
        path.replace(NAMED, "drx")
        for path, schema in MEMBERS.items()
        if "properties" not in schema and not is_refused(schema) and not path.startswith(OWN_IMAGES)
        if NAMED not in path.removeprefix(f"ingress.sources.{NAMED}") and path not in HELMS
    }
    defaults = dict(leaves(DEFAULTS))
    same = {path for path, value in leaves(full) if path in defaults and defaults[path] == value}

    assert {path for path in wanted if not has(full, path)} == set()
    # Switches, and what must be so for the rest to show.
    assert {path for path in same if not path.endswith(".enabled")} <= {
        "consumers.fhir.server.tokenSecret",  # a key stands in its place
        "consumers.archive.lake.existingClaim",  # a bucket does
        "kafka.securityProtocol",
        "monitoring.dashboards",
        # A token is for what asks the API server, and nothing here does.
        "ingress.serviceAccount.automountToken",
        "consumerDefaults.serviceAccount.automountToken",
        # With a cluster it would make what the full case brings itself.
        "strimzi.cluster",
        "strimzi.topics",
        "strimzi.users",
        "consumerDefaults.serviceAccount.name",  # one for all would be made twice
    }


def test_every_value_is_used() -> None:
    found = unused()

    assert not found, f"no template does anything with {', '.join(found)}"


def test_a_consumer_has_what_it_does_not_say_itself_from_the_defaults() -> None:
    own = {"replicas": 7, "keda": {"enabled": False}, "tolerations": [], "resources": {"limits": {"memory": "2Gi"}}}
    values = load("full")
    values["consumers"]["fhir"] |= own
    found = render(values)
    mine, others = found.one("Deployment", "-fhir")["spec"], found.one("Deployment", "-hl7v2")["spec"]

    assert mine["replicas"] == 7
    assert "replicas" not in others
    assert "tolerations" not in mine["template"]["spec"]
    assert others["template"]["spec"]["tolerations"] == values["consumerDefaults"]["tolerations"]
    first, second = (each["template"]["spec"]["containers"][0] for each in (mine, others))
    assert first["resources"]["limits"] == second["resources"]["limits"] | {"memory": "2Gi"}
    assert first["resources"]["requests"] == second["resources"]["requests"]


def test_every_path_in_a_template_is_declared() -> None:
    roots = {
        ".Values": "",
        "$root.Values": "",
        "$.Values": "",
        "$ingress": "ingress",
        "$consumer": "consumers.read_model",
        "$component": "consumers.read_model",
        "$kafka": "kafka",
        "$policy": "networkPolicy",
        "$monitoring": "monitoring",
        "$spool": "ingress.spool",
        "$registry": "registry",
        "$test": "heartbeatTest",
        "$external": "externalSecrets",
        "$strimzi": "strimzi",
        "$job": "topicsJob",
    }
    pattern = re.compile(rf"(?<![\w$.])({'|'.join(map(re.escape, roots))})((?:\.[A-Za-z_]\w*)+)")
    found = {
        f"{roots[root]}{rest}".removeprefix(".")
        for path in (CHART / "templates").rglob("*")
        if path.is_file()
        for root, rest in pattern.findall(path.read_text())
    }

    # What only one of them has is asked of any consumer.
    names = [NAMED, *(each.removeprefix("consumers.") for each in CONSUMERS)]
    known = {path.replace(name, "read_model", 1) for name in names for path in MEMBERS}
    # No values: `drx-bridge.consumers` says whose it is, and where.
    known |= {f"consumers.read_model.{name}" for name in ("name", "path", "home")}
    assert len(found) > 100
    assert found - known == set()


def test_the_read_model_has_the_options_that_it_reads() -> None:
    prefix = "consumers.read_model.options."
    offered = {path.removeprefix(prefix) for path in MEMBERS if path.startswith(prefix) and NAMED not in path}

    assert offered == {info.alias or name for name, info in ReadModelOptions.model_fields.items()}


def test_forward_has_the_options_that_it_reads() -> None:
    prefix = "consumers.forward.options."
    offered = {path.removeprefix(prefix) for path in MEMBERS if path.startswith(prefix) and NAMED not in path}
    mounted = {name for name in ForwardOptions.model_fields if name.endswith(("_dir", "_file"))}

    assert offered == set(ForwardOptions.model_fields) - mounted


def test_fhir_has_the_options_that_it_reads() -> None:
    prefix = "consumers.fhir.options."
    offered = {path.removeprefix(prefix) for path in MEMBERS if path.startswith(prefix) and NAMED not in path}

    assert offered == {name for name in FhirOptions.model_fields if not name.endswith("_file")}


def test_hl7v2_has_the_options_that_it_reads() -> None:
    prefix = "consumers.hl7v2.options."
    offered = {path.removeprefix(prefix) for path in MEMBERS if path.startswith(prefix) and NAMED not in path}

    assert offered == {name for name in Hl7Options.model_fields if not name.endswith("_file")}


def test_archive_has_the_options_that_it_reads() -> None:
    prefix = "consumers.archive.options."
    offered = {path.removeprefix(prefix) for path in MEMBERS if path.startswith(prefix) and NAMED not in path}
    read = {info.alias or name for name, info in ArchiveOptions.model_fields.items()}

    assert offered == {name for name in read if not name.endswith("_file")}


def test_workflow_has_the_options_that_it_reads() -> None:
    prefix = "consumers.workflow.options."
    offered = {path.removeprefix(prefix) for path in MEMBERS if path.startswith(prefix) and NAMED not in path}
    mounted = {name for name in WorkflowOptions.model_fields if name == "rules" or name.endswith(("_dir", "_file"))}

    assert offered == set(WorkflowOptions.model_fields) - mounted


def test_keda_looks_at_the_topics_that_the_read_model_reads() -> None:
    triggers = render(load("keda")).one("ScaledObject")["spec"]["triggers"]

    assert tuple(each["metadata"]["topic"] for each in triggers) == TOPICS
    assert {each["metadata"]["consumerGroup"] for each in triggers} == {ReadModelOptions().group}


def test_keda_looks_at_the_group_of_a_schema_or_an_endpoint_of_its_own() -> None:
    full = render(load("full"))
    groups = {
        trigger["metadata"]["consumerGroup"]
        for each in full.all("ScaledObject")
        for trigger in each["spec"]["triggers"]
    }

    assert groups == {
        ReadModelOptions(schema="read_model_2").group,
        "forward.ehr",
        "forward.lab",
        "fhir.ehr",
        "hl7v2.ehr",
        ArchiveOptions(root="/lake", schema="archive_2").group,
        "eligibility.v2",
        "workflow.desk",
    }


def test_the_readme_has_the_values_as_they_are() -> None:
    assert (CHART / "README.md").read_text() == chart_readme()
