"""What happens to pods, nodes and brokers under load loses nothing that was accepted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.kubernetes.playing import Play, Row, broken
from tests.kubernetes.site import INGRESS, SOURCE, Release, Site

AWAY_S, FROZEN_S = 20.0, 60.0


def deleted(release: Release, *options: str) -> None:
    release.kubectl("delete", "pod", f"{INGRESS}-0", *options)
    release.ready()


def killed(release: Release) -> None:
    deleted(release, "--grace-period=0", "--force")


def without_kubelet(release: Release) -> None:
    node = release.site.kubernetes.node
    if node is None:
        pytest.skip("only the kubelet of a node of our own can be stopped")
    with node.without_kubelet():
        time.sleep(FROZEN_S)
    release.ready()


def broker_killed(release: Release) -> None:
    release.site.kubectl("delete", "pod", "kafka-0", "--grace-period=0", "--force")
    release.site.start_kafka()


def kafka_away(release: Release) -> None:
    with release.site.without_kafka():
        time.sleep(AWAY_S)


def rolled_out(release: Release) -> None:
    release.kubectl("rollout", "restart", f"statefulset/{INGRESS}")
    release.ready()


def scaled(release: Release) -> None:
    before = len(release.pods())
    for replicas in (before + 1, before):
        release.kubectl("scale", f"statefulset/{INGRESS}", f"--replicas={replicas}")
        release.ready()
    release.kubectl("wait", "--for=delete", f"pod/{INGRESS}-{before}", "--timeout=2m")


HAPPENINGS = {
    "a": ("a pod deleted", deleted),
    "b": ("a pod deleted without grace", killed),
    "c": ("the broker deleted without grace", broker_killed),
    "d": ("Kafka away for 20 s", kafka_away),
    "e": ("a rollout", rolled_out),
    "f": ("one replica more, then one less", scaled),
    "g": ("the kubelet frozen for a minute", without_kubelet),
}
ROWS = [
    Row(f"K3{letter}{replicas}", f"{title}; replicas: {replicas}", happens, replicas)
    for replicas in (1, 2)
    for letter, (title, happens) in HAPPENINGS.items()
    # On one node it concerns all pods alike.
    if replicas > 1 or happens is not without_kubelet
]


@contextmanager
def _installed(site: Site, replicas: int) -> Iterator[Release]:
    with site.release(volumes=replicas + 1) as release:
        # A source for each row, all with one Secret: the log of a row is that of its source.
        shared = {**SOURCE, "accept": ["shared_key"]}
        sources = {row.name.lower(): shared for row in ROWS if row.replicas == replicas}
        release.install(release.values(ingress__replicas=replicas, ingress__sources=sources), "--wait")
        yield release


@pytest.fixture(scope="module")
def one(site: Site) -> Iterator[Release]:
    with _installed(site, 1) as release:
        yield release


@pytest.fixture(scope="module")
def two(site: Site) -> Iterator[Release]:
    with _installed(site, 2) as release:
        yield release


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
async def test_nothing_accepted_is_lost(request: pytest.FixtureRequest, row: Row) -> None:
    release: Release = request.getfixturevalue("one" if row.replicas == 1 else "two")
    play = Play(release, source=row.name.lower())

    await play.during(partial(row.happens, release))
    await play.settled()

    assert broken(await play.judge(row.name, row.title, replicas=row.replicas)) == {}
