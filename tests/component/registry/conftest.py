"""Fixtures of the registry's component tests."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from bridge.registry.client import RegistryClient
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from tests.component.registry.registry_fakes import Connect, FakeRegistry


@pytest.fixture
async def registry() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(registry_app(bundled()))) as client:
        yield client


@pytest.fixture
def pauses() -> list[float]:
    """The pauses between tries, without waiting."""
    return []


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
async def connect(pauses: list[float]) -> AsyncIterator[Connect]:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def client_of(app: web.Application) -> RegistryClient:
            server = await stack.enter_async_context(TestServer(app))
            return RegistryClient(
                session, str(server.make_url("/")), sleep=sleep, spread=lambda low, high: (low + high) / 2
            )

        yield client_of


@pytest.fixture
async def client(connect: Connect, fake: FakeRegistry) -> RegistryClient:
    return await connect(fake.app())
