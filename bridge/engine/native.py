"""The native engine: the crate of `bridge/native`, where it is installed; its `src/lib.rs` says how it works.

It is a distribution of its own, `drx-bridge-native`, which nothing requires. If it is missing, does not load, is of
another version or does not take the plan, the start goes on with the Python engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

from bridge.engine.plan import Plan
from bridge.errors import BridgeError
from bridge.event import RECEIPTS_MAX, EncodedEvent

MODULE = "drx_bridge_native"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Takes body, webhook id, source, environment, microseconds of the receipt; returns event type, key, prescription id,
# microseconds at which it happened, record.
Encode = Callable[[bytes, str, str, str, int], tuple[str, str, str | None, int, bytes] | None]


class NativeUnavailableError(BridgeError):
    """There is no native engine here; `code` says why."""

    def __init__(self, code: Literal["not_installed", "not_loadable", "other_version", "plan_refused"]) -> None:
        super().__init__(code)
        self.code = code


class NativeEngine:
    """Encodes the plainly conforming deliveries of one source."""

    __slots__ = ("_encode", "_environment", "_source")

    def __init__(self, encode: Encode, *, source: str, environment: str) -> None:
        self._encode = encode
        self._source = source
        self._environment = environment

    def __call__(self, body: bytes, webhook_id: str, received_at: datetime, /) -> EncodedEvent | None:
        """Return the one event of a body, or None if the delivery is not plainly conforming.

        Raises:
            RuntimeError: The module has panicked.
        """
        found = self._encode(body, webhook_id, self._source, self._environment, _microseconds(received_at))
        if found is None:
            return None
        event_type, key, prescription_id, occurred_us, encoded = found
        occurred_at = _EPOCH + timedelta(microseconds=occurred_us)
        return EncodedEvent(
            webhook_id, event_type, self._source, key, prescription_id, occurred_at, received_at, encoded
        )


@lru_cache(RECEIPTS_MAX)
def _microseconds(received_at: datetime) -> int:
    return (received_at - _EPOCH) // _MICROSECOND


def load(plans: Iterable[Plan], *, version: str, module: str = MODULE) -> list[Encode]:
    """Return what encodes by each plan; any number of sources may share it.

    Raises:
        NativeUnavailableError: There is no module of this version that takes the plans.
    """
    try:
        native: Any = import_module(module)
    except ModuleNotFoundError as exc:
        raise NativeUnavailableError("not_installed" if exc.name == module else "not_loadable") from None
    except Exception:  # noqa: BLE001 - what a library does when it is loaded is not ours to foresee
        raise NativeUnavailableError("not_loadable") from None
    if getattr(native, "__version__", None) != version:
        raise NativeUnavailableError("other_version")
    try:
        return [native.Encoder(plan.to_json()).encode for plan in plans]
    except Exception:  # noqa: BLE001 - as above
        raise NativeUnavailableError("plan_refused") from None
