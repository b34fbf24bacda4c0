"""The chart's network policies, enforced: what they forbid is refused, what they allow passes."""

from contextlib import suppress

import pytest

from tests.integration.service_process import until
from tests.kubernetes.node import ADDRESS
from tests.kubernetes.playing import timed
from tests.kubernetes.site import INGRESS, RELEASE, Kubernetes, Site, an_object, restricted_pod

_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
_IDLE = ["python", "-m", "http.server", "8000", "--directory", "/tmp"]  # noqa: S108 - of a pod


def _reaches(kubernetes: Kubernetes, namespace: str, pod: str, host: str, port: int) -> bool:
    connect = ("exec", pod, "--", "python", "-c", _CONNECT, host, str(port))
    with suppress(RuntimeError):
        kubernetes.kubectl(f"--namespace={namespace}", *connect)
        return True
    return False


def _other(kubernetes: Kubernetes, namespace: str, image: str) -> str:
    """Start a pod that listens on port 8000; return its address."""
    kubernetes.apply(namespace, an_object("Pod", "other", spec=restricted_pod("other", image, _IDLE)))
    kubernetes.kubectl("wait", f"--namespace={namespace}", "--for=condition=Ready", "pod/other", "--timeout=2m")
    return kubernetes.kubectl("get", f"--namespace={namespace}", "pod", "other", "--output=jsonpath={.status.podIP}")


def test_policies_are_enforced(site: Site) -> None:
    """The pods talk to DNS, Kafka and PostgreSQL alone; their management port is for the namespace named."""
    kubernetes = site.kubernetes
    if kubernetes.node is not None:
        kubernetes.node.enforce_policies()
    with (
        timed("K6", "network policies, enforced"),
        kubernetes.namespace() as watching,
        kubernetes.namespace() as elsewhere,
        site.release() as release,
    ):
        # DNS of the node that is started here is no pod.
        dns = {"to": [{"ipBlock": {"cidr": f"{ADDRESS}/32"}}]} if kubernetes.node else {}
        of = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": watching}}}
        release.install(release.values(networkPolicy={"dns": dns, "managementFrom": [of]}), "--wait")
        other = _other(kubernetes, elsewhere, site.own)
        _other(kubernetes, watching, site.own)
        (pod,) = release.pods()
        address = release.kubectl("get", "pod", pod, "--output=jsonpath={.status.podIP}")
        kafka, inside = f"kafka.{site.namespace}", (kubernetes, release.namespace, pod)
        if kubernetes.node is None and _reaches(*inside, other, 8000):
            pytest.skip("this cluster enforces no network policies")

        until(lambda: not _reaches(*inside, other, 8000), what="policies enforced")
        assert _reaches(*inside, kafka, 9092)
        assert not _reaches(*inside, kafka, 9094)
        for namespace, management in ((watching, True), (elsewhere, False)):
            assert _reaches(kubernetes, namespace, "other", f"{INGRESS}.{release.namespace}", 80)
            assert _reaches(kubernetes, namespace, "other", address, 9090) == management
        assert '"outcome":"accepted"' in release.helm("test", RELEASE, "--logs")
