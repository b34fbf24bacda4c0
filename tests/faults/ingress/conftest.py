"""Fixtures of the fault matrix of the ingress: three brokers for all rows of a module, and a place for results."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.ingress.brokers import Brokers
from tests.faults.ingress.scene import Stage


@pytest.fixture(scope="module")
def stage(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give brokers that no other test uses, all running; a test that stops one starts it again.

    They end with the module: three idle brokers would take an eighth of a processor from all tests after it.
    """
    directory = tmp_path_factory.mktemp("matrix")
    brokers = Brokers(directory)
    try:
        brokers.start()
        yield Stage(brokers, postgres_server, directory)
    finally:
        brokers.stop()
