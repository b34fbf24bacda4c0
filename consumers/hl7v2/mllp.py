r"""Send messages over MLLP and read the receiver's acknowledgements.

A message is framed as `0x0B message 0x1C 0x0D` (HL7's transport specification, MLLP release 1). The next message of a
connection is sent after its acknowledgement:

| acknowledgement | raised | the record |
|---|---|---|
| MSA-1 AA or CA, MSA-2 our MSH-10 | nothing | applied |
| AE or CE with error 206 or 207 (locked, internal) | `TransientError("ae_206")` | retried; parked after five failures while other keys succeeded |
| AE or CE with anything else | `PermanentError("ae_…")` | parked at once |
| AR or CR with error 200 to 203 (type, event, processing id, version), 206, 207 or none | systemic `TransientError` | waits |
| AR or CR with anything else | `PermanentError("ar_…")` | parked at once |
| another MSA-2, no MSA, no frame | `TransientError("out_of_step")`, systemic | waits |
| none in time | `TransientError("ack_timeout")`, systemic | waits |
| no connection, an end or a reset of it, TLS | `TransientError`, systemic | waits |

A receiver with an outage may return AR for every message, so such a record waits and is not parked.

After any other acknowledgement the connection is closed: a late acknowledgement would be matched to the next message.
Codes are from the closed list of table 0357. The text of an acknowledgement may quote the message, so it is never
logged or stored.
"""  # noqa: E501 - a table

import asyncio
import ssl
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from bridge.errors import PermanentError, TransientError
from bridge.runtime.metrics import NAMESPACE
from consumers.hl7v2.options import NAME, Hl7Options
from consumers.hl7v2.segments import END
from consumers.http import RequestMetrics, client_tls

CONNECT_S = 5.0
# Bytes kept of an acknowledgement, which may echo the message or never end.
ACK_MAX_BYTES = 64 * 1024
_START, _STOP = b"\x0b", b"\x1c\x0d"
_TAKEN, _FAILED, _REJECTED = frozenset({"AA", "CA"}), frozenset({"AE", "CE"}), frozenset({"AR", "CR"})
# Table 0357, message error condition codes.
_CONDITIONS = frozenset({"100", "101", "102", "103", "200", "201", "202", "203", "204", "205", "206", "207"})
_LATER = frozenset({"206", "207"})
# Errors of every message, or of the receiver itself.
_NOT_OF_THE_MESSAGE = frozenset({"", "200", "201", "202", "203", *_LATER})


class Hl7Metrics(RequestMetrics):
    """Counts messages, without pings, and outcomes of events without a known patient."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        messages = {"counted": "Messages sent by outcome", "timed": "Time to the acknowledgement"}
        super().__init__(registry, name=NAME, service=service, **messages)
        own: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        text = "Events that waited until their patient was known, and those of them that the receiver refused then"
        held = Counter("hl7v2_held", text, ("service", "outcome"), **own)
        self.waiting, self.refused = (held.labels(service, outcome) for outcome in ("waiting", "refused"))
        dropped = "Control characters left out of messages"
        self.dropped = Counter("hl7v2_characters_dropped", dropped, ("service",), **own).labels(service)


class _Connection:
    """One connection, with at most one message in flight."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def usable(self) -> bool:
        """Whether the receiver has not closed it."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    async def exchange(self, message: bytes, *, timeout_s: float) -> str:
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(_START + message + _STOP)
                await self._writer.drain()
                frame = await self._frame()
        except TimeoutError as exc:
            raise TransientError("ack_timeout", systemic=True) from exc
        except (asyncio.IncompleteReadError, OSError) as exc:
            raise TransientError("cut_off", systemic=True) from exc
        if frame[:1] != _START:
            raise TransientError("out_of_step", systemic=True)
        # An acknowledgement in another encoding still has its codes in ASCII.
        return frame[1:].removesuffix(_STOP).decode(errors="replace")

    async def _frame(self) -> bytes:
        """Read a whole frame; keep only the beginning of a long one, which has MSA."""
        frame = b""
        while True:
            try:
                return (frame + await self._reader.readuntil(_STOP))[:ACK_MAX_BYTES]
            except asyncio.LimitOverrunError as exc:
                frame = (frame + await self._reader.readexactly(exc.consumed))[:ACK_MAX_BYTES]

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            # Unread bytes must not reach the receiver after newer messages.
            self._writer.transport.abort()


class Link:
    """A pool of connections to one receiver, shared by the lanes."""

    def __init__(self, options: Hl7Options, metrics: Hl7Metrics) -> None:
        """Keep up to `connections` open, on demand."""
        self._options = options
        self._tls = (
            None if options.allow_plaintext else client_tls(options.ca_file, options.cert_file, options.key_file)
        )
        self._metrics = metrics
        # Last in, first out: few messages use few connections.
        self._free: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(options.connections):
            self._free.put_nowait(None)

    async def send(self, text: str, *, control_id: str) -> None:
        """Send one message and return when it is acknowledged; raises as in the table of this module."""
        with self._metrics.timed():
            connection, keep = await self._free.get(), None
            try:
                connection = await self._usable(connection)
                answer = await connection.exchange(text.encode(), timeout_s=self._options.ack_timeout_s)
                code, condition = _acknowledgement(answer, control_id)
                keep = connection
            finally:
                # Also after cancellation: the acknowledgement may still arrive.
                try:
                    if keep is None and connection is not None:
                        await asyncio.shield(connection.close())
                finally:
                    self._free.put_nowait(keep)
            _judge(code, condition)

    async def ping(self) -> None:
        """Connect to the receiver; HL7 has no ping message."""
        if self._free.empty():
            return  # all are in use: their messages will show an outage
        connection, keep = self._free.get_nowait(), None
        try:
            keep = await self._usable(connection)
        finally:
            self._free.put_nowait(keep)

    async def aclose(self) -> None:
        """Close every connection; no message may be in progress."""
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                await connection.close()

    async def _usable(self, connection: _Connection | None) -> _Connection:
        """Return the connection, or a new one if the receiver has closed it."""
        if connection is not None:
            if connection.usable:
                return connection
            await connection.close()
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    self._options.host, self._options.port, ssl=self._tls, limit=ACK_MAX_BYTES
                )
        except ssl.SSLError as exc:
            raise TransientError("tls", systemic=True) from exc
        except (OSError, TimeoutError) as exc:
            raise TransientError("unreachable", systemic=True) from exc
        return _Connection(reader, writer)


def _acknowledgement(text: str, control_id: str) -> tuple[str, str]:
    """Return MSA-1 and the error condition of table 0357, or an empty one."""
    lines = text.replace("\n", END).split(END)
    if not lines[0].startswith("MSH") or len(lines[0]) < len("MSH|^"):
        raise TransientError("out_of_step", systemic=True)
    field, component = lines[0][3], lines[0][4]
    segments = {line[:3]: line.split(field) for line in reversed(lines)}  # the first one of each name
    msa = segments.get("MSA", [])
    if len(msa) <= 2 or msa[2] != control_id or msa[1] not in _TAKEN | _FAILED | _REJECTED:  # noqa: PLR2004 - MSA-2
        raise TransientError("out_of_step", systemic=True)
    # ERR-3 since 2.5; before that, MSA-6 or the fourth component of ERR-1.
    err = segments.get("ERR", [])
    places = [*err[3:4], *(each.split(component)[3:4][0] for each in err[1:2] if each.count(component) >= 3), *msa[6:7]]  # noqa: PLR2004
    found = (each.split(component)[0].split("&")[0] for each in places)
    return msa[1], next((each for each in found if each in _CONDITIONS), "")


def _judge(code: str, condition: str) -> None:
    if code in _TAKEN:
        return
    kind = "ae" if code in _FAILED else "ar"
    named = f"{kind}_{condition}" if condition else kind
    if kind == "ae" and condition in _LATER:
        raise TransientError(named)
    if kind == "ar" and condition in _NOT_OF_THE_MESSAGE:
        raise TransientError(named, systemic=True)
    raise PermanentError(named)
