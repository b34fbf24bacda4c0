"""A foreign registry for the client's tests."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from bridge.registry.client import RegistryClient

Answer = tuple[int, object]
Connect = Callable[[web.Application], Awaitable[RegistryClient]]

# A foreign schema.
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "id", "type": "long"}],
}


class FakeRegistry:
    """Returns the responses set for a path in turn, then the last one again; Apicurio's 404 for other paths."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        key = f"{request.method} {request.raw_path}"
        self.asked[key] += 1
        self.authorizations.add(request.headers.get("Authorization"))
        answers = self.answers.get(key, [(404, {"error_code": 0, "message": "No artifact"})])
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")


def shown(schema: object, **more: object) -> Answer:
    return 200, {"schema": json.dumps(schema), **more}
