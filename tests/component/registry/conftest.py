"""Fixtures of the registry's component tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.registry.client import RegistryClient
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from bridge.registry.store_open import open_store
from tests.component.registry.registry_calls import Client
from tests.component.registry.registry_fakes import Clock, Connector, FakeRegistry


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where `registry` keeps what is registered."""
    return tmp_path / "registry.json"


@pytest.fixture
async def registry(file: Path) -> AsyncIterator[Client]:
    """The embedded registry over a socket."""
    async with TestClient(TestServer(registry_app(open_store(bundled(), path=file)))) as client:
        yield client


@pytest.fixture
async def frozen() -> AsyncIterator[Client]:
    """The same, read-only."""
    async with TestClient(TestServer(registry_app(open_store(bundled(), read_only=True)))) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """Time as the client sees it."""
    return Clock()


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    """A foreign registry that does as it is told."""
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
async def embedded(connect: Connector) -> RegistryClient:
    """Our client of our registry."""
    return await connect(registry_app(open_store(bundled())))
