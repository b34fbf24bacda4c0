"""Scenes of `fhir`: three groups at once write to one FHIR server, each under identifiers of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import web

from bridge.dev.ports import free_port
from consumers.fhir.elements import Naming
from consumers.fhir.mapping import resources
from tests.faults.scene import PARTITIONS, SESSION_S, Ground, Scene, Subject, scene_of
from tests.fhir.fake import FakeFhir
from tests.fhir.told import documents
from tests.topic_filler import Lives

NAME = "fhir"
GROUPS = 3


class Server:
    """The fake FHIR server in a thread of its own, which may be away; what it keeps stays."""

    def __init__(self) -> None:
        self._port = free_port()
        self.fake = FakeFhir(f"http://127.0.0.1:{self._port}/fhir")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._runner: web.ServerRunner | None = None

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self) -> None:
        """Be there again."""
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def close(self) -> None:
        """Go away: who connects now is refused."""
        runner, self._runner = self._runner, None
        if runner is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result()

    def kept(self, base: str) -> dict[str, dict[str, Any]]:
        """Return what is there of a group."""

        async def look() -> dict[str, dict[str, Any]]:
            return {
                place: {name: value for name, value in each.items() if name not in {"resourceType", "id", "meta"}}
                for place, each in self.fake.all().items()
                if each["meta"]["source"].startswith(base)
            }

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    def versions(self) -> dict[str, int]:
        """Return how often each place was changed."""

        async def look() -> dict[str, int]:
            return {place: kept.version for place, kept in self.fake.kept.items()}

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    async def _open(self) -> None:
        self._runner = web.ServerRunner(web.Server(self.fake.answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", urlsplit(self.fake.url).port).start()


@contextmanager
def recording(ground: Ground, lives: Lives, server: Server) -> Iterator[list[Scene]]:
    """Set a scene for each group."""
    with ExitStack() as stack:
        yield [stack.enter_context(_scene(ground, lives, server)) for _ in range(GROUPS)]


@contextmanager
def _scene(ground: Ground, lives: Lives, server: Server) -> Iterator[Scene]:
    instance = f"i{uuid4().hex[:12]}"
    topic, base = f"faults.fhir.{instance}", f"urn:{instance}:"
    settings = {
        "KAFKA__SESSION_S": SESSION_S,
        "FHIR__INSTANCE": instance,
        "FHIR__TOPICS": topic,
        "FHIR__BASE_URL": server.fake.url,
        "FHIR__ALLOW_HTTP": "true",
        "FHIR__IDENTIFIER_BASE": base,
        "FHIR__TIMEOUT_S": "5",
    }
    subject = Subject(NAME, f"{NAME}.{instance}", settings, {}, (), _check(server, base))
    with scene_of(ground, subject, topic=topic, lives=lives, partitions=PARTITIONS) as scene:
        yield scene


def _check(server: Server, base: str) -> Callable[[Scene], None]:
    def check(scene: Scene) -> None:
        """Each resource is what all events come to, each event has its Provenance, and none is parked."""
        naming, lives = Naming(base, mrn=f"{base}mrn", patient=f"{base}patient"), scene.lives
        assert scene.parked() == 0
        events = [event for number in range(lives.prescriptions) for event in lives.events(number)]
        expected = {
            f"{each.type}/{each.id}": each.elements
            for key, document in documents(events).items()
            for each in resources(key, document, naming)
        }
        found = server.kept(base)
        origins = {place for place in found if place.startswith("Provenance/")}
        # A signal that stood for a while only leaves a flag that is inactive.
        gone = {place for place, each in found.items() if each.get("status") == "inactive"}
        assert {place: each for place, each in found.items() if place not in origins | gone} == expected
        assert len(origins) == len({event.id for event in events})

    return check
