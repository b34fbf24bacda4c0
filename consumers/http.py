"""Call other systems over HTTP from handlers, and classify their responses; wraps aiohttp's client.

| response | raised | the record |
|---|---|---|
| 2xx | nothing | applied |
| no connection, TLS, time-out, 3xx, 401, 403, 404, 407, 408, 410, 425, 429, 502, 503, 504 | `TransientError`, systemic | waits until the endpoint works again, and is never parked |
| 409, 412, 500 and every other 5xx | `TransientError` | is retried; parked after five failures while other keys passed |
| every other 4xx | `PermanentError` | is parked at once |

Codes are constants: `http_503`, `unreachable`, `tls`, `timeout`, `cut_off`. The body of a response may quote the
request, so it is never logged or stored. `Retry-After` is ignored: an unavailable endpoint is tried every 30 s at most.
"""  # noqa: E501 - a table

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Histogram

from bridge.errors import BridgeError, ConfigError, PermanentError, TransientError
from bridge.runtime.hosts import is_host
from bridge.runtime.metrics import DURATION_BUCKETS, NAMESPACE

# Seconds; a longer connect is an outage. The rest of `timeout_s` is for the response.
CONNECT_S = 5.0
# Maximum bytes read of a response: an endless one must not fill the memory.
RESPONSE_MAX_BYTES = 64 * 1024

_OK, _REDIRECT, _CLIENT, _SERVER = 200, 300, 400, 500
# Statuses of an endpoint that is away, rejects our credentials, or has another URL: other events would fail, too.
_SYSTEMIC = frozenset({401, 403, 404, 407, 408, 410, 425, 429, 502, 503, 504})
# Another writer was faster; the request may succeed once the state has been read again.
_CONFLICTS = frozenset({409, 412})


class HttpReply(NamedTuple):
    """A response with a status of 2xx, or one of `also`."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes  # the first `response_max_bytes`


class Timed:
    """The code that a request ended with."""

    code = "ok"

    def answered(self, status: int) -> None:
        """Set the code from a status."""
        self.code = "ok" if status < _REDIRECT else f"http_{status}"


class RequestMetrics:
    """Counts and times requests by code, including those of `ping`.

    The metrics are `drxbridge_<name>_requests_total` and `drxbridge_<name>_request_duration_seconds`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        name: str,
        service: str,
        counted: str = "HTTP requests by outcome",
        timed: str = "Time to the response",
    ) -> None:
        """Register both; `name` is a constant, `service` the consumer's group, the others are help strings."""
        own: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._requests = Counter(f"{name}_requests", counted, ("service", "code"), **own)
        duration = Histogram(f"{name}_request_duration_seconds", timed, ("service",), buckets=DURATION_BUCKETS, **own)
        self._duration = duration.labels(service)
        self.service = service

    @contextmanager
    def timed(self) -> Iterator[Timed]:
        """Count the request made in the block, by the code of its exception or the one set in the block."""
        timed, began = Timed(), time.monotonic()
        try:
            yield timed
        except BaseException as exc:
            timed.code = exc.code if isinstance(exc, BridgeError) else "cancelled"
            raise
        finally:
            self.observe(timed.code, time.monotonic() - began)

    def observe(self, code: str, seconds: float) -> None:
        """Count one request that ended with `code`."""
        self._requests.labels(self.service, code).inc()
        self._duration.observe(seconds)


@dataclass(eq=False, repr=False)
class HttpClient:
    """A session with one endpoint; can be shared among lanes."""

    _session: aiohttp.ClientSession
    _base_url: str  # without a final slash
    _ping_path: str | None
    _metrics: RequestMetrics | None
    _response_max_bytes: int

    async def post(
        self, path: str = "", body: str | bytes = b"", *, headers: Mapping[str, str] | None = None
    ) -> HttpReply:
        """Send a POST; see `request`. Pass `event.id` as `idempotency-key`, since a request may be repeated."""
        return await self.request("POST", path, body, headers=headers)

    async def ping(self) -> None:
        """Check that the endpoint responds with a status below 500 that is not systemic."""
        try:
            await self.request("GET", self._ping_path or "")
        except PermanentError:
            return
        except TransientError as exc:
            # Without a ping path, a 404 shows that the endpoint is available.
            if exc.code in {"http_409", "http_412"} or (self._ping_path is None and exc.code == "http_404"):
                return
            raise

    async def request(
        self,
        method: str,
        path: str = "",
        body: str | bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        also: Collection[int] = (),
    ) -> HttpReply:
        """Send one request below the base URL and return a 2xx response; bodies are JSON unless `headers` differ.

        `also` are further statuses to return instead of raising, for responses whose body explains them.
        """
        with nullcontext(Timed()) if self._metrics is None else self._metrics.timed() as timed:
            response = await self._exchange(method, path, body, headers or {}, also)
            timed.answered(response.status)
        return response

    async def _exchange(
        self, method: str, path: str, body: str | bytes, headers: Mapping[str, str], also: Collection[int]
    ) -> HttpReply:
        content = body.encode() if isinstance(body, str) else body
        named = {name.lower(): value for name, value in headers.items()}
        if content:
            named.setdefault("content-type", "application/json")
        try:
            async with self._session.request(
                method, self._base_url + path, data=content or None, headers=named, allow_redirects=False
            ) as response:
                received = await _first_bytes(response, self._response_max_bytes)
                if response.status not in also:
                    judge(response.status)
                names = {name.lower(): value for name, value in response.headers.items()}
                return HttpReply(response.status, names, received)
        except aiohttp.ClientSSLError as exc:
            raise TransientError("tls", systemic=True) from exc
        except aiohttp.ConnectionTimeoutError as exc:
            raise TransientError("unreachable", systemic=True) from exc
        except TimeoutError as exc:
            raise TransientError("timeout", systemic=True) from exc
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as exc:
            raise TransientError("cut_off", systemic=True) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise TransientError("unreachable", systemic=True) from exc


def judge(status: int) -> None:
    """Raise the error for a status, by the table of this module; none for 2xx."""
    code = f"http_{status}"
    if _OK <= status < _REDIRECT:
        return
    if status < _CLIENT or status in _SYSTEMIC:
        raise TransientError(code, systemic=True)
    if status >= _SERVER or status in _CONFLICTS:
        raise TransientError(code)
    raise PermanentError(code)


@asynccontextmanager
async def open_http(
    base_url: str,
    *,
    timeout_s: float = 10.0,
    connections: int = 64,
    headers: Mapping[str, str] | None = None,
    allow_http: bool = False,
    allowed_by: str = "open_http(…, allow_http=True)",
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    ping_path: str | None = None,
    metrics: RequestMetrics | None = None,
    response_max_bytes: int = RESPONSE_MAX_BYTES,
) -> AsyncIterator[HttpClient]:
    """Open a session with the endpoint at `base_url`; nothing is sent before the first request.

    An `http://` URL needs `allow_http`, which an operator sets by `allowed_by`, since health information is sent.
    `timeout_s` is for a whole request, and must be less than the handler's; use at least as many `connections` as
    lanes. `headers`, such as a token, are never logged. `ping` requests `ping_path`; without it, any response but
    5xx to a GET of the base URL suffices. Raises `ConfigError` if the URL or a file is invalid.
    """
    scheme, host = _server(base_url)
    if not host:
        raise ConfigError("the URL of an endpoint must be https://host[:port][/path]")
    if scheme == "http" and not allow_http:
        raise ConfigError(
            f"the URL of {host} is plain HTTP, and health information is sent to it:"
            f" use https, or allow it by {allowed_by}"
        )
    connector = aiohttp.TCPConnector(limit=connections, ssl=client_tls(ca_file, cert_file, key_file))
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s)),
        # Compression is not accepted: a small response must not decompress to a large one.
        headers={"accept-encoding": "identity", **(headers or {})},
        auto_decompress=False,
        # The library's bound on a header is 8 KiB, and gateways send longer ones.
        max_field_size=RESPONSE_MAX_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield HttpClient(session, base_url.rstrip("/"), ping_path, metrics, response_max_bytes)


def _server(url: str) -> tuple[str, str]:
    """Return scheme and host of a URL; both empty if it is invalid."""
    try:
        parts = urlsplit(url)
        if parts.scheme in {"https", "http"} and is_host(parts.hostname or "") and parts.port != 0:
            return parts.scheme, str(parts.hostname)
    except ValueError:  # unbalanced brackets, or an invalid port
        pass
    return "", ""


def client_tls(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return the TLS context for a connection to an endpoint, of any protocol.

    Files are PEM: CA certificates (default: the system's), and our certificate with its key, unless `key_file` has it.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ValueError):  # `ssl.SSLError` is an `OSError`
        names = ", ".join(str(each) for each in (ca_file, cert_file, key_file) if each is not None)
        raise ConfigError(f"cannot read certificates or a key in PEM from {names}") from None
    return context


async def _first_bytes(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read up to the limit; a longer response is truncated, and its connection closed."""
    try:
        received = await response.content.readexactly(limit)
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    response.close()
    return received
