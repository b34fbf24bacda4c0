import pytest

from tests.faults.ingress.brokers import Brokers
from tests.faults.ingress.scene import Stage

_STAGES: list[Stage] = []


@pytest.fixture
def stage(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Return brokers that no other test uses, all running; a test that stops one starts it again."""
    if not _STAGES:
        directory = tmp_path_factory.mktemp("matrix")
        brokers = Brokers(directory)
        _STAGES.append(Stage(brokers, postgres_server, directory))
        brokers.start()
    return _STAGES[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Stop them before a test without brokers: three idle ones take an eighth of a core."""
    if _STAGES and "stage" not in getattr(nextitem, "fixturenames", ()):
        _STAGES.pop().brokers.stop()
