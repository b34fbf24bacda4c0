"""A registry of somebody else's, which takes schemas: as much of Confluent's API as `schemas push` and a start call."""

import json
from typing import Any

from aiohttp import web

from bridge.registry.schemas import meaning

# Above the ids of the lock, which mean something else here.
FIRST_ID = 2**30


class ForeignRegistry:
    """Holds each schema under one id; `subjects` are those of the newest versions."""

    def __init__(self) -> None:
        self.subjects: dict[str, int] = {}
        self._versions: set[tuple[str, int]] = set()
        self.texts: dict[int, str] = {}

    def put(self, subject: str, text: str) -> int:
        known = (each for each, other in self.texts.items() if _same(other, text))
        number = next(known, FIRST_ID + len(self.texts))
        self.texts[number] = text
        self.subjects[subject] = number
        self._versions.add((subject, number))
        return number

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/schemas/ids/{id}", self._by_id)
        app.router.add_post("/subjects/{subject}", self._look_up)
        app.router.add_post("/subjects/{subject}/versions", self._register)
        return app

    async def _by_id(self, request: web.Request) -> web.Response:
        text = self.texts.get(int(request.match_info["id"]))
        return _refusal(40403, "Schema not found") if text is None else web.json_response({"schema": text})

    async def _look_up(self, request: web.Request) -> web.Response:
        subject, text = request.match_info["subject"], await _text(request)
        found = (number for of, number in self._versions if of == subject and _same(self.texts[number], text))
        number = next(found, None)
        if number is None:
            return _refusal(40403, "Schema not found")
        return web.json_response({"id": number, "schema": text})

    async def _register(self, request: web.Request) -> web.Response:
        subject, text = request.match_info["subject"], await _text(request)
        if subject in self.subjects and not _fits(self.texts[self.subjects[subject]], text):
            return _refusal(40901, f"{subject} has fields of other types")
        return web.json_response({"id": self.put(subject, text)})


async def _text(request: web.Request) -> str:
    body: dict[str, Any] = await request.json()
    return str(body["schema"])


def _same(one: str, other: str) -> bool:
    return meaning(json.loads(one)) == meaning(json.loads(other))


def _fits(older: str, newer: str) -> bool:
    types = {field["name"]: field["type"] for field in json.loads(older)["fields"]}
    return all(types.get(field["name"], field["type"]) == field["type"] for field in json.loads(newer)["fields"])


def _refusal(error_code: int, message: str) -> web.Response:
    return web.json_response({"error_code": error_code, "message": message}, status=error_code // 100)
