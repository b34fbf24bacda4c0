"""Fixtures of the registry's component tests."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.registry.client import RegistryClient
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from tests.component.registry.registry_fakes import Clock, Connector, FakeRegistry


@pytest.fixture
async def registry() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(registry_app(bundled()))) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """What the client pauses with."""
    return Clock()


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    yield registry
    registry.release.set()


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Connector]:
    """Makes clients of applications."""
    async with aiohttp.ClientSession() as session:
        connector = Connector(session, clock)
        yield connector
        await connector.close()


@pytest.fixture
async def client(connect: Connector, fake: FakeRegistry) -> RegistryClient:
    """Our client of the foreign one."""
    return await connect(fake.app())


@pytest.fixture
async def embedded(connect: Connector) -> RegistryClient:
    return await connect(registry_app(bundled()))
