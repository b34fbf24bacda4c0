"""Secrets of every scheme change under a running bridge as Kubernetes changes them: a link is put in place at once.

Without Kafka: what is proved is spooled.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.builders import a_body
from tests.integration.ingress_process import IngressProcess, ask
from tests.integration.service_process import HANG_S, until
from tests.rotation import BAD_FILES, SENDERS, Sender

# Nobody listens on it.
NO_KAFKA = "127.0.0.1:9"
SETTINGS = {"HTTP__DEADLINE_S": "1", "SPOOL__AFTER_S": "0.1"}
RELOADS, VERIFIED = "drxbridge_secret_reload_total", "drxbridge_signature_verified_total"
# Between the deliveries of a sender while secrets change.
PAUSE_S = 0.1


class Volume:
    """A mounted Secret: files are links into `..data`, which is one to the set in force."""

    def __init__(self, path: Path) -> None:
        """Mount it empty."""
        self.path = path
        self._sets = itertools.count()
        path.mkdir()

    def hold(self, files: Mapping[str, str]) -> None:
        """Put another set in force, all files at once."""
        content = self.path / f"..set_{next(self._sets)}"
        content.mkdir()
        for name, text in files.items():
            (content / name).write_text(text)
        link = self.path / "..data_tmp"
        link.symlink_to(content.name)
        link.replace(self.path / "..data")
        for name in files:
            with suppress(FileExistsError):
                (self.path / name).symlink_to(f"..data/{name}")
        for each in self.path.iterdir():
            if not each.name.startswith("..") and each.name not in files:
                each.unlink()


class Rotation:
    """All senders and the ingress that they push to."""

    def __init__(self, ingress: IngressProcess, volumes: Mapping[str, Volume], session: aiohttp.ClientSession) -> None:
        """Push to a source for each sender, named by its place among them."""
        self.ingress = ingress
        self.volumes = volumes
        self.session = session
        self._count = itertools.count()

    async def push(self, sender: Sender, number: int) -> int:
        """Push something new, proved with one of the two secrets; return the status."""
        delivery_id = f"evt_{next(self._count)}"
        body = a_body(id=delivery_id)
        url = f"{self.ingress.url}/webhooks/{source_of(sender)}{sender.query(number)}"
        return (
            await ask(self.session, url, method="POST", data=body, headers=sender.headers(number, body, delivery_id))
        ).status

    async def push_all(self, number: int) -> dict[str, int]:
        """Push for each scheme at once."""
        statuses = await asyncio.gather(*(self.push(sender, number) for sender in SENDERS.values()))
        return dict(zip(SENDERS, statuses, strict=True))

    async def change(self, outcome: str, *slots: tuple[str, int], **others: str) -> None:
        """Have every source hold these slots with a secret each, and other files; return when all of them have seen."""
        before = {scheme: self.reloads(scheme, outcome) for scheme in SENDERS}
        for scheme, volume in self.volumes.items():
            volume.hold({name: SENDERS[scheme].slot(number) for name, number in slots} | others)
        for scheme in SENDERS:
            await asyncio.to_thread(
                until, lambda scheme=scheme: self.reloads(scheme, outcome) > before[scheme], what=f"{scheme}: {outcome}"
            )

    def reloads(self, scheme: str, outcome: str) -> float:
        return self.ingress.metric(RELOADS, source=source_of(SENDERS[scheme]), outcome=outcome)

    @asynccontextmanager
    async def meanwhile(self, number: int) -> AsyncIterator[None]:
        """Have every sender push without end, and see that none of it is refused."""
        ended = asyncio.Event()

        async def load(sender: Sender) -> set[int]:
            statuses = set()
            while not ended.is_set():
                statuses.add(await self.push(sender, number))
                await asyncio.sleep(PAUSE_S)
            return statuses

        tasks = [asyncio.create_task(load(sender)) for sender in SENDERS.values()]
        try:
            yield
        finally:
            ended.set()
            statuses = await asyncio.gather(*tasks)
        assert dict(zip(SENDERS, statuses, strict=True)) == {scheme: {202} for scheme in SENDERS}


def source_of(sender: Sender) -> str:
    return sender.scheme.replace("+", "-")


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Volume]:
    found = {scheme: Volume(tmp_path / source_of(sender)) for scheme, sender in SENDERS.items()}
    for scheme, volume in found.items():
        volume.hold({"current": SENDERS[scheme].slot(0)})
    return found


@pytest.fixture
def ingress(volumes: Mapping[str, Volume], tmp_path: Path) -> Iterator[IngressProcess]:
    settings = dict(SETTINGS)
    for scheme, sender in SENDERS.items():
        values = {
            "PROFILE": "drx_standard",
            "ENVIRONMENT": "sandbox",
            "SECRETS_DIR": str(volumes[scheme].path),
            "SCHEME": scheme,
            "ACCEPT": "no_tls,unsigned_id,url_token_alone,undated",
            **{f"SCHEME_{name.upper()}": value for name, value in sender.parameters.items()},
        }
        settings |= {f"SOURCES__{source_of(sender)}__{name}": value for name, value in values.items()}
    with IngressProcess(tmp_path / "run", NO_KAFKA, **settings) as ingress:
        yield ingress.live()


async def test_secrets_of_every_scheme_are_rotated_and_spoilt_under_load(
    ingress: IngressProcess, volumes: Mapping[str, Volume]
) -> None:
    taken, refused = dict.fromkeys(SENDERS, 202), dict.fromkeys(SENDERS, 401)
    pid = ingress.pid
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        rotation = Rotation(ingress, volumes, session)
        assert (await rotation.push_all(0), await rotation.push_all(1)) == (taken, refused)

        async with rotation.meanwhile(0):
            await rotation.change("reloaded", ("previous", 0), ("current", 1))
        assert (await rotation.push_all(0), await rotation.push_all(1)) == (taken, taken)

        async with rotation.meanwhile(1):
            for name, content in BAD_FILES.items():
                await rotation.change("failed", ("previous", 0), ("current", 1), **{name: content})
        assert (await rotation.push_all(0), await rotation.push_all(1)) == (taken, taken)

        async with rotation.meanwhile(1):
            await rotation.change("reloaded", ("current", 1))
        assert (await rotation.push_all(0), await rotation.push_all(1)) == (refused, taken)

    assert ingress.pid == pid
    assert ingress.metric(VERIFIED, key_slot="previous") >= 2 * len(SENDERS)
