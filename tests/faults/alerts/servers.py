"""A real Prometheus and real Alertmanagers on loopback, which evaluate the shipped rules `FACTOR` times as fast."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

import orjson
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.dev.ports import HOST, free_port
from bridge.dev.processes import Child
from tests.debian import command, fetch, lacking
from tests.faults.alerts.scaling import scaled, scaled_duration
from tests.integration.service_process import PROBE_S, until
from tests.monitoring.queries import ROOT, RULES

# A minute becomes a second. The system's own delays are not divided: with more, a slow response would look like hours.
FACTOR = 60
# The scrape interval of the chart, `monitoring.intervalS`; also the evaluation interval.
SCRAPE = scaled_duration("30s", FACTOR)
# Prometheus's defaults.
_LOOKBACK, _RESEND = (scaled_duration(each, FACTOR) for each in ("5m", "1m"))
# Each alert separately and at once, without Alertmanager's usual grouping delays.
_ROUTE = {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
SAMPLE = yaml.safe_load((ROOT / "docs" / "alertmanager.yaml").read_text())


def need() -> None:
    """Find or download both; without them the test is skipped with a hint how to get them."""
    absent = [lacking(name) for name in ("prometheus", "alertmanager") if fetch(name) is None]
    if absent:
        pytest.skip("; ".join(absent))


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def alerts(self) -> list[str]:
        return sorted({each["labels"]["alertname"] for each in self._ask("alerts")["alerts"]})

    def runbooks(self) -> set[str]:
        rules = [rule for group in self._ask("rules", type="alert")["groups"] for rule in group["rules"]]
        return {each["annotations"]["runbook_url"] for each in rules}

    def value(self, query: str) -> float | None:
        found = self._ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def series(self, query: str, *, since: float, until: float) -> list[list[float]]:
        found = self._ask("query_range", query=query, start=f"{since}", end=f"{until}", step="1")["result"]
        return [[float(value) for _, value in each["values"]] for each in found]

    def _ask(self, what: str, **asked: str) -> Any:
        try:
            with urlopen(f"{self._url}/api/v1/{what}?{urlencode(asked)}", timeout=PROBE_S) as answer:  # noqa: S310 - http to ourselves
                return orjson.loads(answer.read())["data"]
        except HTTPError as exc:
            with exc:
                pytest.fail(exc.read().decode())


class Alertmanager:
    def __init__(self, address: str) -> None:
        self.address = address
        self._url = f"http://{address}/api/v2/alerts"

    def post(self, alerts: Sequence[Mapping[str, str]]) -> None:
        body = orjson.dumps([{"labels": each} for each in alerts])
        request = Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310 - http to ourselves
        with urlopen(request, timeout=PROBE_S):  # noqa: S310 - as above
            pass

    def firing(self) -> list[dict[str, str]]:
        with urlopen(f"{self._url}?silenced=false", timeout=PROBE_S) as answer:  # noqa: S310 - http to ourselves
            found = orjson.loads(answer.read())
        return [each["labels"] for each in found if not each["status"]["inhibitedBy"]]


@contextmanager
def alerting(directory: Path, config: Mapping[str, Any]) -> Iterator[Alertmanager]:
    address = f"{HOST}:{free_port()}"
    directory.mkdir()
    _write(directory / "alertmanager.yaml", config)
    arguments = [
        "--config.file=alertmanager.yaml",
        "--storage.path=alertmanager",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with _running([*command("alertmanager"), *arguments], directory, address):
        yield Alertmanager(address)


@contextmanager
def watching(directory: Path, *, targets: Mapping[str, Sequence[str]], webhook: str) -> Iterator[Prometheus]:
    """Run Prometheus for the block, and an Alertmanager that delivers everything to `webhook`.

    `targets` maps a job to the addresses of its management ports.
    """
    directory.mkdir()
    with alerting(directory / "everything", {"route": _ROUTE, "receivers": [_receiver(webhook)]}) as told:
        _write(directory / "rules.yaml", scaled(RULES, FACTOR))
        _write(directory / "prometheus.yaml", _config(targets, told.address))
        pace = f"--query.lookback-delta={_LOOKBACK}", f"--rules.alert.resend-delay={_RESEND}"
        with prometheus(directory, *pace) as watching:
            yield watching


@contextmanager
def prometheus(directory: Path, *arguments: str) -> Iterator[Prometheus]:
    address = f"{HOST}:{free_port()}"
    own = "--config.file=prometheus.yaml", "--storage.tsdb.path=prometheus", f"--web.listen-address={address}"
    with _running([*command("prometheus"), *own, *arguments], directory, address):
        yield Prometheus(f"http://{address}")


@contextmanager
def _running(arguments: Sequence[str], directory: Path, address: str) -> Iterator[None]:
    child = Child(address, command=list(arguments), cwd=directory, log=directory / "log")
    try:
        child.start()
        until(lambda: _ready(child, address), what=arguments[0])
        yield
    finally:
        child.stop()


def _config(targets: Mapping[str, Sequence[str]], alertmanager: str) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": job,
                # As a monitor of the chart would add it.
                "static_configs": [{"targets": [urlsplit(url).netloc for url in urls], "labels": {"namespace": "rx"}}],
            }
            for job, urls in targets.items()
        ],
    }


def _receiver(webhook: str) -> dict[str, Any]:
    return {"name": _ROUTE["receiver"], "webhook_configs": [{"url": webhook, "send_resolved": True}]}


def _ready(child: Child, address: str) -> bool:
    assert child.alive, child.last_line
    try:
        with urlopen(f"http://{address}/-/ready", timeout=PROBE_S) as answer:
            return int(answer.status) == HTTPStatus.OK
    except HTTPError as exc:  # it has begun, and is not ready
        exc.close()
    except (URLError, ConnectionError, TimeoutError):
        pass
    return False


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
