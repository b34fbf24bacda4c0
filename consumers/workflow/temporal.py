"""Call a Temporal server: requests, meaning of responses, and encryption of payloads; wraps its library.

| response | raised, with code | the record |
|---|---|---|
| OK | nothing | applied |
| ALREADY_EXISTS: the workflow has run before, or runs and was to be started only | nothing | applied, counted `late` |
| NOT_FOUND to a signal: no workflow of that id runs | nothing | applied, counted `late` |
| no connection, UNAVAILABLE; DEADLINE_EXCEEDED, CANCELLED; RESOURCE_EXHAUSTED; UNAUTHENTICATED, PERMISSION_DENIED; UNKNOWN; INTERNAL; UNIMPLEMENTED; FAILED_PRECONDITION; NOT_FOUND of the namespace | `TransientError`, systemic: `unreachable`, `timeout`, `resource_exhausted`, `unauthorized`, `unknown`, `internal`, `unimplemented`, `failed_precondition`, `namespace_missing` | waits until the server works again |
| INVALID_ARGUMENT | `PermanentError`: `invalid_argument` | parked at once |
| any other | `TransientError`: the status in lower case | retried; parked after five failures while other keys succeeded |

The server recognises a repeat by its request id. A workflow is never started twice, even after it has ended
(`REJECT_DUPLICATE`, for as long as the namespace keeps histories). Messages of the server may quote ids, so they are
neither logged nor stored.
"""  # noqa: E501 - a table

import asyncio
import os
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import CollectorRegistry, Counter, Gauge

# This is the wrapper.
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution  # noqa: TID251
from temporalio.api.enums.v1 import WorkflowIdReusePolicy  # noqa: TID251
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure  # noqa: TID251
from temporalio.api.workflowservice.v1 import (  # noqa: TID251
    DescribeNamespaceRequest,
    SignalWithStartWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.converter import PayloadCodec  # noqa: TID251
from temporalio.runtime import Runtime, TelemetryConfig  # noqa: TID251
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient, TLSConfig  # noqa: TID251

from bridge.errors import ConfigError, PermanentError, TransientError
from bridge.runtime.metrics import NAMESPACE
from bridge.runtime.secret_files import SecretsError, load_slots, read_lines
from bridge.runtime.signing_secret import Slot
from consumers.http import RequestMetrics, client_tls
from consumers.lifecycle.safety import SAFETY_KINDS
from consumers.options import read_token
from consumers.workflow.options import NAME, WorkflowOptions
from consumers.workflow.rules import Action

# The server accepts 2 MiB per payload and 4 MiB per request, which may have two; the rest is for ids.
PAYLOAD_MAX = 2 * 1024 * 1024 - 16 * 1024
CURRENT = "current"
_KEY_BYTES = 32
_NONCE_BYTES = 12
# Names as in Temporal's encryption samples, in every language.
_ENCODING, _SEALED, _KEY_ID = "encoding", b"binary/encrypted", "encryption-key-id"
# A library thread that handles a response while Python exits aborts the process; it takes milliseconds.
_LEAVE_S = 0.2
# Seconds of one call; most take milliseconds, and a server that is failing over responds within seconds.
TIMEOUT_S = 10.0
# Seconds that a library call may take beyond its timeout.
_SPARE_S = 0.5

_SYSTEMIC = {
    RPCStatusCode.UNAVAILABLE: "unreachable",
    RPCStatusCode.DEADLINE_EXCEEDED: "timeout",
    RPCStatusCode.CANCELLED: "timeout",  # the library's own time limit
    RPCStatusCode.RESOURCE_EXHAUSTED: "resource_exhausted",
    RPCStatusCode.UNAUTHENTICATED: "unauthorized",
    RPCStatusCode.PERMISSION_DENIED: "unauthorized",
    # The library also maps a cut connection to it, and foreign responses, as of a load balancer during an outage. If it
    # concerns a single event, the success of others shows that.
    RPCStatusCode.UNKNOWN: "unknown",
    RPCStatusCode.INTERNAL: "internal",
    RPCStatusCode.UNIMPLEMENTED: "unimplemented",
    # The namespace is being deleted or active in another cluster, or the server rejects this client version (api-go,
    # `serviceerror`).
    RPCStatusCode.FAILED_PRECONDITION: "failed_precondition",
}
_refuses_us = re.compile(r"\bcode: (Unauthenticated|PermissionDenied)\b").search
# Statuses about the state of a workflow, not errors.
LATE = "late"
# Kinds of waits that workflows are started for: from the read model's views, and its safety signals.
KINDS = ("unconfirmed", "cancel_unanswered", "request_open", "source_silent", *SAFETY_KINDS)


class WorkflowMetrics(RequestMetrics):
    """Counts calls of the server, without pings, and actions of timers, if enabled."""

    def __init__(self, registry: CollectorRegistry, *, service: str, timers: bool) -> None:
        server = "of the workflow server"
        counted, timed = f"Calls {server} by outcome", f"Time to the response {server}"
        super().__init__(registry, name=NAME, service=service, counted=counted, timed=timed)
        own: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        started = "Workflows started for overdue waits, and signalled that these are resolved"
        self._timers = Counter("workflow_timers", started, ("service", "kind", "outcome"), **own)
        checked = "When this process last checked overdue waits and reported all of them to the workflow server"
        self._checked = Gauge("workflow_timers_checked_timestamp_seconds", checked, ("service",), **own)
        if timers:
            for kind in KINDS:
                for outcome in ("started", "resolved"):
                    self._timers.labels(service, kind, outcome)
            self.checked()

    def timer(self, kind: str, outcome: str) -> None:
        """Count a timer's workflow that was `started`, or signalled that it is `resolved`."""
        self._timers.labels(self.service, kind, outcome).inc()

    def checked(self) -> None:
        """Note a complete run."""
        self._checked.labels(self.service).set_to_current_time()


class EncryptedPayloads(PayloadCodec):
    """Encrypts and decrypts payloads with AES-256-GCM; workers use it as `DataConverter(payload_codec=…)`.

    It encrypts with the first of `keys` (id -> 32 bytes), and decrypts with any.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt each payload."""
        return [self.seal(each) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt each encrypted payload; `ValueError` if no key fits, or it was altered."""
        return [self._open(each) for each in payloads]

    def seal(self, payload: Payload) -> Payload:
        """Encrypt one payload."""
        name, key = next(iter(self._keys.items()))
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + key.encrypt(nonce, payload.SerializeToString(), None)
        return Payload(metadata={_ENCODING: _SEALED, _KEY_ID: name.encode()}, data=sealed)

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get(_ENCODING) != _SEALED:
            return payload
        named = payload.metadata.get(_KEY_ID, b"").decode("ascii", "replace")
        # The file may have been renamed.
        for name in sorted(self._keys, key=lambda name: name != named):
            with suppress(InvalidTag):
                opened = self._keys[name].decrypt(payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:], None)
                return Payload.FromString(opened)
        raise ValueError("encrypted with another key, or changed since")


def read_codec_keys(directory: Path) -> dict[str, bytes]:
    """Read all keys of a directory by their ids, the names of their files; each has 32 bytes in base64.

    The first is the one in use: `current`, or the last by name if there is none of that name.
    """
    keys = {each.name: each.key for each in load_slots(directory, _parse_key)}
    used = CURRENT if CURRENT in keys else max(keys)
    return {used: keys[used]} | keys


def _parse_key(where: Path, content: bytes) -> Slot[bytes]:
    (text,), window = read_lines(where, content)
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SecretsError("secret_malformed", f"{where}: a key is the base64 of {_KEY_BYTES} bytes")
    if window:
        raise SecretsError("secret_line", f"{where}: a key for payloads has no dates; the last by name is in use")
    return Slot(where.name, key)


@dataclass(eq=False, repr=False)
class Temporal:
    """One namespace of a server; can be shared among lanes."""

    client: ServiceClient
    options: WorkflowOptions
    identity: str  # in histories
    codec: EncryptedPayloads | None  # encrypts payloads
    metrics: WorkflowMetrics

    async def act(self, action: Action, payload: bytes, *, request_id: str) -> bool:
        """Start or signal a workflow with a JSON payload; return False if it had ended or run before.

        Raises as in the table of this module; a payload that is too large is also refused.
        """
        with self.metrics.timed() as timed:
            timed.code = await self._act(action, self._sealed(payload), request_id)
        return timed.code != LATE

    async def _act(self, action: Action, payloads: Payloads, request_id: str) -> str:
        service = self.client.workflow_service
        common: dict[str, Any] = {
            "namespace": self.options.namespace,
            "identity": self.identity,
            "request_id": request_id,
        }
        if action.do == "signal":
            signal = SignalWorkflowExecutionRequest(
                **common,
                workflow_execution=WorkflowExecution(workflow_id=action.id),
                signal_name=action.signal,
                input=payloads,
            )
            return await self._called(service.signal_workflow_execution, signal, may_be_missing=True)
        started: dict[str, Any] = {
            **common,
            "workflow_id": action.id,
            "workflow_type": {"name": action.workflow},
            "task_queue": {"name": action.task_queue},
            "input": payloads,
            "workflow_id_reuse_policy": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
        }
        if action.do == "start":
            return await self._called(service.start_workflow_execution, StartWorkflowExecutionRequest(**started))
        return await self._called(
            service.signal_with_start_workflow_execution,
            SignalWithStartWorkflowExecutionRequest(**started, signal_name=action.signal, signal_input=payloads),
        )

    async def ping(self) -> None:
        """Check that the server is available and has the namespace; read the API key again."""
        if self.options.api_key_file is not None:
            self.client.update_api_key(read_token(self.options.api_key_file, code="no_api_key"))
        request = DescribeNamespaceRequest(namespace=self.options.namespace)
        await self._called(self.client.workflow_service.describe_namespace, request)

    async def _called(
        self, call: Callable[..., Awaitable[object]], request: object, *, may_be_missing: bool = False
    ) -> str:
        """Call and return `ok` or `late`."""
        try:
            # The library's time limit does not cover the connection before the first call.
            async with asyncio.timeout(TIMEOUT_S + _SPARE_S):
                # Without its own retries: the consumer runtime decides on retries.
                await call(request, retry=False, timeout=timedelta(seconds=TIMEOUT_S))
        except RPCError as exc:
            return _judged(exc, may_be_missing=may_be_missing)
        except TimeoutError:
            raise TransientError("timeout", systemic=True) from None
        except RuntimeError as exc:  # the library reports a failed first connection only in the message
            code = "unauthorized" if _refuses_us(str(exc)) else "unreachable"
            raise TransientError(code, systemic=True) from None
        return "ok"

    def _sealed(self, payload: bytes) -> Payloads:
        made = Payload(metadata={_ENCODING: b"json/plain"}, data=payload)
        if self.codec is not None:
            made = self.codec.seal(made)
        if made.ByteSize() > PAYLOAD_MAX:
            raise PermanentError("too_large")
        return Payloads(payloads=[made])


def _judged(exc: RPCError, *, may_be_missing: bool) -> str:
    """Return `late`, or raise an error by the table of this module."""
    if exc.status == RPCStatusCode.ALREADY_EXISTS:
        return LATE
    if exc.status == RPCStatusCode.NOT_FOUND:
        if may_be_missing and not any(each.Is(NamespaceNotFoundFailure.DESCRIPTOR) for each in exc.grpc_status.details):
            return LATE
        raise TransientError("namespace_missing", systemic=True) from None
    if exc.status == RPCStatusCode.INVALID_ARGUMENT:
        raise PermanentError("invalid_argument") from None
    code = _SYSTEMIC.get(exc.status)
    raise TransientError(code or exc.status.name.lower(), systemic=code is not None) from None


def read_tls(directory: Path | None) -> TLSConfig:
    """Read the files of a TLS directory; without one, the system's CA certificates are used."""
    if directory is None:
        return TLSConfig()
    ca, certificate, key = ((directory / name) for name in ("ca.crt", "tls.crt", "tls.key"))
    if not ca.is_file() and not certificate.is_file():
        raise ConfigError(f"workflow.tls_dir: {directory} has neither ca.crt nor tls.crt")
    ours = certificate if certificate.is_file() else None
    client_tls(ca if ca.is_file() else None, ours, key if ours else None)  # checks them
    return TLSConfig(
        server_root_ca_cert=ca.read_bytes() if ca.is_file() else None,
        client_cert=ours.read_bytes() if ours else None,
        client_private_key=key.read_bytes() if ours else None,
    )


@asynccontextmanager
async def open_temporal(
    options: WorkflowOptions, metrics: WorkflowMetrics, *, identity: str
) -> AsyncIterator[Temporal]:
    """Open a client; nothing is sent before the first request. `ConfigError` if a file or a key cannot be used."""
    codec = None if options.codec_key_dir is None else EncryptedPayloads(read_codec_keys(options.codec_key_dir))
    api_key = None
    if options.api_key_file is not None:
        try:
            api_key = read_token(options.api_key_file, code="no_api_key")
        except TransientError:
            msg = f"workflow.api_key_file: cannot read {options.api_key_file}, or it holds no key"
            raise ConfigError(msg) from None
    client = await ServiceClient.connect(
        ConnectConfig(
            target_host=options.address,
            tls=False if options.allow_plaintext else read_tls(options.tls_dir),
            api_key=api_key,
            identity=identity,
            lazy=True,
            # Otherwise it would write to standard error and serve metrics.
            runtime=Runtime(telemetry=TelemetryConfig(logging=None, metrics=None)),
        )
    )
    try:
        yield Temporal(client, options, identity=identity, codec=codec, metrics=metrics)
    finally:
        await asyncio.sleep(_LEAVE_S)
