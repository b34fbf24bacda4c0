"""Upgrades, rollbacks and removed pods, with events in the spool."""

import subprocess
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from tests.chart.tools import ROOT
from tests.docker import images
from tests.integration.service_process import until
from tests.kubernetes.playing import Play, broken
from tests.kubernetes.site import INGRESS, RELEASE, SOURCE, Release, Site, node_port

# Without a tag: the commit before the suite.
_BEFORE = "41355848"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603, S607 - ours


@pytest.fixture
def before(site: Site, tmp_path: Path) -> tuple[str, Path]:
    """Return image and chart of the last tag."""
    tags = _git("tag", "--list", "v*", "--sort=-version:refname").decode().split()
    commit = tags[0] if tags else _BEFORE
    with tarfile.open(fileobj=BytesIO(_git("archive", commit, "helm/drx-bridge"))) as archive:
        archive.extractall(tmp_path, filter="data")
    return site.kubernetes.image(images.own, at=commit), tmp_path / "helm" / "drx-bridge"


async def test_an_upgrade_and_a_rollback_lose_nothing(site: Site, before: tuple[str, Path]) -> None:
    image, chart = before
    with site.release(chart=chart, image=image) as release:
        release.install(release.values(ingress__sources={"k4": SOURCE}), "--wait")
        play = Play(release, source="k4")

        await play.during(partial(_replaced_twice, release, play))
        await play.settled()

        title = "`helm upgrade` from the last release and `helm rollback`, Kafka away and the spool filling"
        assert broken(await play.judge("K4", title, replicas=1)) == {}


def _replaced_twice(release: Release, play: Play) -> None:
    """Upgrade and roll back while Kafka is away: without Jobs, which would wait for it."""
    new = Release(release.site, release.namespace)
    with release.site.without_kafka():
        _until_spooling(play)
        new.install(new.values(ingress__sources={"k4": SOURCE}, topicsJob__enabled=False), "--wait")
        assert play.spooled() > 0
        release.helm("rollback", RELEASE, "1", "--wait", "--no-hooks")
        assert play.spooled() > 0


def _until_spooling(play: Play) -> None:
    until(lambda: play.spooled() > 0, what="events in the spool")


async def test_the_spool_of_a_removed_pod_is_drained_in_order(site: Site) -> None:
    with site.release(volumes=2) as release:
        sources = {"ingress__sources": {"k8": SOURCE}}
        release.install(release.values(ingress__replicas=2, **sources), "--wait")
        release.apply(node_port("removed", {"statefulset.kubernetes.io/pod-name": f"{INGRESS}-1"}, http=8080))
        play = Play(release, service="removed", source="k8")
        claim = f"data-{INGRESS}-1"

        with site.without_kafka():
            await play.during(partial(_until_spooling, play))
            assert any(each.outcome == "spooled" for each in play.ledger.attempts)
            release.install(release.values(ingress__replicas=1, topicsJob__enabled=False, **sources))
            release.kubectl("wait", "--for=delete", f"pod/{INGRESS}-1", "--timeout=2m")
        release.install(release.values(ingress__replicas=1, ingress__spool__drainClaims=[claim], **sources), "--wait")

        verdict = await play.judge("K8", "`drainClaims` after a scale-down with Kafka away", replicas=1)
        assert broken(verdict) == {}
