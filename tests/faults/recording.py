"""Scenes of `fhir`: three groups at once write to one FHIR server, each under identifiers of its own.

For two of them the server chooses the ids.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import web

from bridge.dev.ports import free_port
from consumers.fhir.capability import WRITTEN
from consumers.fhir.elements import Naming
from consumers.fhir.mapping import resources
from tests.faults.scene import PARTITIONS, SESSION_S, Ground, Scene, Subject, scene_of
from tests.fhir.fake import FakeFhir, referring
from tests.fhir.hapi import HapiServer
from tests.fhir.told import documents
from tests.integration.service_process import until
from tests.topic_filler import Lives

NAME = "fhir"
GROUPS = 3


class Peer(Protocol):
    """A FHIR server that several groups write to.

    Attributes:
        chooses_ids: It takes none of a client.
        timeout_s: How long its clients wait.
    """

    chooses_ids: bool
    timeout_s: str

    @property
    def url(self) -> str:
        """Base URL."""

    def open(self) -> None:
        """Be there again."""

    def close(self) -> None:
        """Go away."""

    def kept(self, base: str) -> dict[str, dict[str, Any]]:
        """Return what is there of a group."""

    def wait_done(self) -> None:
        """Wait until every late write is done."""


class RealServer:
    """HAPI FHIR, which chooses all ids."""

    chooses_ids, timeout_s = True, "15"

    def __init__(self, directory: Path) -> None:
        self._hapi = HapiServer(directory, kept=True)
        self.url = self._hapi.ids_url

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        self._hapi.start()

    def close(self) -> None:
        self._hapi.stop()

    def kept(self, base: str) -> dict[str, dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for resource_type in WRITTEN:
            query = f"{resource_type}?_count=200"
            while query:
                page = self._hapi.call("GET", query)
                found += [each["resource"] for each in page.get("entry", ())]
                following = [each["url"] for each in page["link"] if each["relation"] == "next"]
                query = following[0].removeprefix(self._hapi.url).lstrip("/") if following else ""
        return _by_our_ids(found, base)

    def wait_done(self) -> None:
        """No write is late."""


class Server:
    """The fake FHIR server in a thread of its own, which may be away; what it keeps stays."""

    chooses_ids, timeout_s = False, "5"

    def __init__(self) -> None:
        self._port = free_port()
        self.fake = FakeFhir(f"http://127.0.0.1:{self._port}/fhir")
        self.url = self.fake.url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._runner: web.ServerRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self) -> None:
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result()

    def kept(self, base: str) -> dict[str, dict[str, Any]]:
        async def look() -> dict[str, dict[str, Any]]:
            return _by_our_ids(self.fake.all().values(), base)

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    def wait_done(self) -> None:
        until(lambda: not self.fake.late, what="every late write to be done")

    def versions(self) -> dict[str, int]:
        async def look() -> dict[str, int]:
            return {place: kept.version for place, kept in self.fake.kept.items()}

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    async def _open(self) -> None:
        self._runner = web.ServerRunner(web.Server(self.fake.answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", urlsplit(self.fake.url).port).start()


@contextmanager
def recording(ground: Ground, lives: Lives, server: Peer) -> Iterator[list[Scene]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                writing(ground, lives, server, FHIR__IDS="server" if number or server.chooses_ids else "client")
            )
            for number in range(GROUPS)
        ]


@contextmanager
def writing(ground: Ground, lives: Lives, server: Peer, **more: str) -> Iterator[Scene]:
    instance = f"i{uuid4().hex[:12]}"
    topic, base = f"faults.fhir.{instance}", f"urn:{instance}:"
    settings = {
        "KAFKA__SESSION_S": SESSION_S,
        "FHIR__INSTANCE": instance,
        "FHIR__TOPICS": topic,
        "FHIR__BASE_URL": server.url,
        "FHIR__ALLOW_HTTP": "true",
        "FHIR__IDENTIFIER_BASE": base,
        "FHIR__MRN_SYSTEM": f"{base}mrn",
        "FHIR__TIMEOUT_S": server.timeout_s,
        **more,
    }
    subject = Subject(NAME, f"{NAME}.{instance}", settings, {}, (), _check(server, base))
    with scene_of(ground, subject, topic=topic, lives=lives, partitions=PARTITIONS) as scene:
        yield scene


def _check(server: Peer, base: str) -> Callable[[Scene], None]:
    def check(scene: Scene) -> None:
        """Each resource is what all events come to, a Provenance names it, and no event is parked."""
        naming, lives = Naming(base, mrn=f"{base}mrn", patient=f"{base}patient"), scene.lives
        assert scene.parked() == 0
        server.wait_done()
        found, told, most, wrong = server.kept(base), set(), 0, []
        for number in range(lives.prescriptions):
            events = lives.events(number)
            most = max(most, len(events))
            for key, document in documents(events).items():
                for each in resources(key, document, naming):
                    place = f"{each.type}/{each.id}"
                    told.add(place)
                    if found.pop(place, None) != each.elements:
                        wrong.append(place)
        assert wrong == []
        origins = {place for place in found if place.startswith("Provenance/")}
        # A signal that stood for a while only leaves a flag that is inactive.
        assert {found[place].get("status") for place in found.keys() - origins} <= {"inactive"}
        assert {target["reference"] for each in origins for target in found[each]["target"]} >= told
        # A repeat of what was written already is no new version: none has more than its key has events.
        if isinstance(server, Server):
            assert max(server.versions().values()) <= most

    return check


def _by_our_ids(kept: Iterable[dict[str, Any]], base: str) -> dict[str, dict[str, Any]]:
    """Return a group's resources as if we had chosen all ids; no identifier says which we would have."""
    own = [each for each in kept if each["meta"].get("source", "").startswith(base)]
    names = {
        f"{each['resourceType']}/{each['id']}": f"{each['resourceType']}/{had['value']}"
        for each in own
        for had in each.get("identifier", ())
        if had["system"] == f"{base}resource"
    }
    found = {}
    for each in own:
        place = f"{each['resourceType']}/{each['id']}"
        said = {name: value for name, value in each.items() if name not in {"resourceType", "id", "meta"}}
        said["identifier"] = [had for had in said.get("identifier", ()) if had["system"] != f"{base}resource"]
        found[names.get(place, place)] = referring({name: value for name, value in said.items() if value}, names)
    assert len(found) == len(own)
    return found
