"""Mistakes that only a cluster shows: one line names what is wrong, and a page has the same word with the remedy."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chart.tools import ROOT
from tests.integration.service_process import until
from tests.kubernetes.playing import timed
from tests.kubernetes.site import Site

_SPOOL = "/var/lib/drx-bridge/spool"


def _covered(**volume: Any) -> dict[str, Any]:
    """Cover the spool's directory with a volume of another kind."""
    read_only = volume.pop("readOnly", False)
    return {
        "ingress__extraVolumes": [{"name": "other", "emptyDir": volume}],
        "ingress__extraVolumeMounts": [{"name": "other", "mountPath": _SPOOL, "readOnly": read_only}],
    }


@dataclass(frozen=True, slots=True)
class Mistake:
    name: str
    line: tuple[str, str]  # of `kubectl describe` or the pod's log, by two parts of it
    page: str
    named: str  # on a line of the page,
    remedy: str  # with what to do
    values: dict[str, Any]


_UNAVAILABLE = "worker.spool_unavailable"
MISTAKES = (
    Mistake(
        "a missing Secret",
        ("FailedMount", 'secret "drx-spool-keys" not found'),
        *("helm/drx-bridge/README.md", "FailedMount", "names the Secret that is missing"),
        {"ingress__spool__keySecret": "drx-spool-keys"},
    ),
    Mistake(
        "a wrong key",
        (_UNAVAILABLE, '"code":"no_key"'),
        *("docs/spool.md", "`no_key`", "restore it"),
        {"ingress__spool__keySecret": "drx-webhook"},
    ),
    Mistake(
        "a full volume",
        (_UNAVAILABLE, '"code":"full"'),
        *("docs/spool.md", "`full`", "free space"),
        _covered(medium="Memory", sizeLimit="4Ki"),
    ),
    Mistake(
        "a read-only disk",
        (_UNAVAILABLE, '"code":"read_only"'),
        *("docs/spool.md", "`read_only`", "remount"),
        _covered(readOnly=True),
    ),
    Mistake(
        "a missing topic",
        ("worker.partition_count", '"topic":"site.missing.v1","seen":null'),
        *("docs/runbooks/PartitionCountMismatch.md", "missing topic", "drx-bridge topics create"),
        {"topicsJob__enabled": False, "kafka__routes": {"*": "site.missing.v1"}},
    ),
)


@pytest.mark.parametrize("mistake", [pytest.param(each, id=each.name.replace(" ", "-")) for each in MISTAKES])
def test_what_is_wrong_and_its_remedy_are_named(site: Site, mistake: Mistake) -> None:
    title = "named by the cluster or one line of the pod, remedy on a page"
    with timed(f"K5 {mistake.name}", title), site.release() as release:
        release.install(release.values(**mistake.values))

        if mistake.line[0] == "FailedMount":
            release.described(*mistake.line)
        else:
            # A full disk shows when it is needed.
            full = mistake.name == "a full volume"
            with site.without_kafka() if full else nullcontext():
                until(
                    lambda: release.post() in ({"unavailable"} if full else {"accepted", "spooled"}), what="a response"
                )
                release.said(*mistake.line)
        page = (ROOT / mistake.page).read_text().splitlines()
        assert any(mistake.named in line and mistake.remedy in line for line in page)
