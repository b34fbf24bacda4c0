"""Which engine a start takes, and what the crate of the native one is built from."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from bridge.app import _with_engines
from bridge.engine.native import MODULE, NativeEngine, NativeUnavailableError, load
from bridge.engine.plan import Kind, Plan
from bridge.engine.python import PythonEngine
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.proof import FixedSecrets
from bridge.ingress.routes import Source
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks
from bridge.runtime.metrics import IngressMetrics
from bridge.settings import Engine
from tests.builders import a_slot
from tests.engine_cases import RECEIVED_AT, engines_of, needs_native, plan
from tests.unit.test_engine import full_document

ROOT = Path(__file__).parents[2]
CRATE = ROOT / "bridge" / "native"
VERSION = version("drx-bridge")
ENCODER = "class Encoder:\n    def __init__(self, plan):\n        pass\n    def encode(self, *_):\n        pass\n"
HERE = f"__version__ = {VERSION!r}\n"


class Started:
    """What a start with some engine has come to."""

    def __init__(self, wanted: Engine) -> None:
        metrics = IngressMetrics(CollectorRegistry())
        dialects = {"drx": "drx_standard", "pharmacy": "photon_cloudevents"}
        sources = {
            name: Source(name, "sandbox", load_profile(profile), StandardWebhooks(), FixedSecrets((a_slot(),)))
            for name, profile in dialects.items()
        }
        with capture_logs() as lines:
            self.sources = _with_engines(sources, wanted, metrics)
        self.warnings = [(line["event"], line["code"]) for line in lines]
        gauges = {
            each: metrics.registry.get_sample_value("drxbridge_engine", {"engine": each})
            for each in ("native", "python", "reference")
        }
        self.used = [each for each, value in gauges.items() if value]

    @property
    def engine(self) -> object:
        assert self.sources["pharmacy"].engine is None
        return self.sources["drx"].engine


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Put a module in the place of the native one, or nothing."""

    def put(source: str | None) -> None:
        monkeypatch.setitem(sys.modules, MODULE, None)  # as Python marks what is not there
        if source is not None:
            monkeypatch.delitem(sys.modules, MODULE)
            (tmp_path / f"{MODULE}.py").write_text(source)
            monkeypatch.syspath_prepend(tmp_path)

    return put


@pytest.mark.parametrize("wanted", ["auto", "native"])
def test_a_native_engine_of_this_version_is_used(wanted: Engine, install: Callable[[str | None], None]) -> None:
    install(HERE + ENCODER)
    started = Started(wanted)

    assert isinstance(started.engine, NativeEngine)
    assert (started.used, started.warnings) == (["native"], [])


@pytest.mark.parametrize("wanted", ["auto", "native"])
@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("raise ImportError", "not_loadable"),
        ("raise OSError", "not_loadable"),
        ("import drx_bridge_part_that_is_missing", "not_loadable"),
        ("__version__ = '0.0.1'\n" + ENCODER, "other_version"),
        (ENCODER, "other_version"),
        (HERE, "plan_refused"),
        (HERE + "def Encoder(plan):\n    raise ValueError\n", "plan_refused"),
    ],
)
def test_a_native_engine_that_cannot_be_used_costs_one_warning_and_no_start(
    wanted: Engine, module: str, code: str, install: Callable[[str | None], None]
) -> None:
    install(module)
    started = Started(wanted)

    assert isinstance(started.engine, PythonEngine)
    assert (started.used, started.warnings) == (["python"], [("worker.engine_unavailable", code)])


def test_a_native_engine_that_is_not_installed_is_missed_only_if_it_is_asked_for(
    install: Callable[[str | None], None],
) -> None:
    install(None)
    by_itself, asked_for = Started("auto"), Started("native")

    assert (by_itself.used, by_itself.warnings) == (["python"], [])
    assert (asked_for.used, asked_for.warnings) == (["python"], [("worker.engine_unavailable", "not_installed")])


def test_other_engines_are_used_though_the_native_one_is_there(install: Callable[[str | None], None]) -> None:
    install(HERE + ENCODER)
    python, reference = Started("python"), Started("reference")

    assert isinstance(python.engine, PythonEngine)
    assert reference.engine is None
    assert (python.used, reference.used) == (["python"], ["reference"])


def oversized(kind: Kind) -> Kind:
    """Give decimals more digits than the native engine can count with."""
    return replace(
        kind,
        precision=60 if kind.name == "decimal" else kind.precision,
        items=kind.items and oversized(kind.items),
        fields=tuple(replace(each, kind=each.kind and oversized(each.kind)) for each in kind.fields),
    )


def changed(change: Callable[[Kind], Kind]) -> Plan:
    events = {
        name: replace(event, fields=tuple(replace(each, kind=each.kind and change(each.kind)) for each in event.fields))
        for name, event in plan().events.items()
    }
    return replace(plan(), events=events)


@needs_native
def test_a_panic_is_an_error_that_says_nothing_of_the_body(capfd: pytest.CaptureFixture[str]) -> None:
    body = orjson.dumps(full_document("prescription.sent"))
    panicking = engines_of("native", changed(oversized))("drx", "sandbox")

    with pytest.raises(RuntimeError, match="panic"):
        panicking(body, "evt_1", RECEIVED_AT)
    assert capfd.readouterr() == ("", "")
    assert engines_of("native", plan())("drx", "sandbox")(body, "evt_1", RECEIVED_AT) is not None


@needs_native
@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(replace(plan(), key_pattern="[a-z]+"), id="a key pattern"),
        pytest.param(
            changed(lambda kind: replace(kind, name="moment" if kind.name == "instant" else kind.name)),  # type: ignore[arg-type]  # no kind that there is
            id="a kind",
        ),
        pytest.param(changed(lambda kind: replace(kind, words=dict.fromkeys(kind.words, "0"))), id="bytes"),
    ],
)
def test_the_crate_refuses_a_plan_that_it_does_not_understand(strange: Plan) -> None:
    with pytest.raises(NativeUnavailableError, match="plan_refused"):
        load([strange], version=VERSION)


def test_the_crate_has_the_version_of_the_bridge_and_pins_what_it_requires() -> None:
    crate = tomllib.loads((CRATE / "Cargo.toml").read_text())
    requirements = [each["version"] if isinstance(each, dict) else each for each in crate["dependencies"].values()]

    assert crate["package"]["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert all(each.startswith("=") for each in requirements)


@pytest.fixture
def lock() -> Any:
    spec = importlib.util.spec_from_file_location("crate_lock", CRATE / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_has_a_checksum_for_every_crate_and_names_no_host(lock: Any) -> None:
    kept = lock.KEPT.read_text()
    packages = tomllib.loads(kept)["package"]
    whole = lock.with_sources(kept, "somewhere")

    assert "source" not in kept
    assert not re.search(r"\w\.(io|com|org)\b", kept)
    assert [each["name"] for each in packages if "checksum" not in each] == ["drx-bridge-native"]
    assert {each["name"]: each.get("source") for each in tomllib.loads(whole)["package"]} == {
        each["name"]: "somewhere" if "checksum" in each else None for each in packages
    }
    assert lock.without_sources(whole) == kept
