"""The variables that a container of a rendered pod starts with."""

from tests.chart.rendering import Object, Rendered


def variables(rendered: Rendered, pod: Object, *, pod_name: str) -> dict[str, str]:
    """Return what the kubelet would set of `envFrom` and `env`; it takes `envFrom` first."""
    container = pod["spec"]["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        (config,) = (
            each for each in rendered.all("ConfigMap") if each["metadata"]["name"] == source["configMapRef"]["name"]
        )
        found |= {source.get("prefix", "") + key: value for key, value in config["data"].items()}
    for each in container.get("env", []):
        if "valueFrom" in each:
            assert each["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}, "nothing else is known here"
        found[each["name"]] = each.get("value", pod_name)
    return found
