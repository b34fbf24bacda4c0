"""Scenes of `fhir`: groups write to one FHIR server, each under separate identifiers."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar
from uuid import uuid4

from aiohttp import web

from bridge.dev.ports import free_port
from consumers.fhir.elements import Naming
from consumers.fhir.mapping import resources
from tests.faults.scene import Ground, Scene, Subject, scene_of
from tests.fhir.fake import FakeFhir, referring
from tests.fhir.told import documents
from tests.topic_filler import Lives

T = TypeVar("T")

NAME = "fhir"


class Server:
    """The fake FHIR server in a thread, which may be down; its data is kept."""

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
        self._run(self._open())

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            self._run(self._close(runner))

    def kept(self, base: str) -> dict[str, dict[str, Any]]:
        async def look() -> dict[str, dict[str, Any]]:
            return _by_our_ids(self.fake.all().values(), base)

        return self._run(look())

    def versions(self) -> list[int]:
        async def look() -> list[int]:
            return [kept.version for kept in self.fake.kept.values()]

        return self._run(look())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        self._runner = web.ServerRunner(web.Server(self.fake.answer))
        await self._runner.setup()
        self._socket = socket.create_server(("127.0.0.1", self._port))
        await web.SockSite(self._runner, self._socket).start()

    async def _close(self, runner: web.ServerRunner) -> None:
        # asyncio's server leaves open what it accepts just before its end: stop accepting first.
        self._loop.remove_reader(self._socket)
        await _turns()  # until each accepted connection has a handler, which cleanup ends
        await runner.cleanup()
        await _turns()  # until what was closed has ended, since the loop may end next


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@contextmanager
def writing(ground: Ground, lives: Lives, server: Server) -> Iterator[Scene]:
    instance = f"i{uuid4().hex[:12]}"
    base = f"urn:{instance}:"
    options = {
        "INSTANCE": instance,
        "TOPICS": f"faults.fhir.{instance}",
        "BASE_URL": server.url,
        "ALLOW_HTTP": "true",
        "IDENTIFIER_BASE": base,
        "MRN_SYSTEM": f"{base}mrn",
        "TIMEOUT_S": "5",
    }
    subject = Subject(NAME, f"{NAME}.{instance}", options["TOPICS"], options, partial(check, server, base))
    with scene_of(ground, subject, lives) as scene:
        yield scene


def check(server: Server, base: str, scene: Scene) -> None:
    naming, lives = Naming(base, mrn=f"{base}mrn", patient=f"{base}patient"), scene.lives
    assert scene.parked() == 0
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
    # A resolved signal leaves an inactive flag.
    assert {found[place].get("status") for place in found.keys() - origins} <= {"inactive"}
    assert {target["reference"] for each in origins for target in found[each]["target"]} >= told
    # A repeat of what was written already is no new version: none has more than its key has events.
    assert max(server.versions()) <= most


def _by_our_ids(kept: Iterable[dict[str, Any]], base: str) -> dict[str, dict[str, Any]]:
    """Return a group's resources with the ids that the consumer would have chosen."""
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
