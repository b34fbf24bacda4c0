"""What can go wrong between us and a registry, by what may help."""

from __future__ import annotations

from bridge.errors import BridgeError


class RegistryUnavailableError(BridgeError):
    """No usable answer: away, slow, failing, or not a registry. Nothing is known; the same call may work later."""

    code = "registry_unavailable"
    retriable = True

    def __init__(self, url: str, why: str = "no answer") -> None:
        """Say `why` the registry at `url` (without credentials) is of no use now."""
        super().__init__(f"registry {url}: {why}")


class IdsMissingError(BridgeError):
    """The registry answers but does not hold our schemas; `drx-bridge schemas push` makes the same call work."""

    code = "registry_ids_missing"
    retriable = True


class RegistryRefusedError(BridgeError):
    """The registry will not have it, however often it is asked.

    Attributes:
        status: HTTP status; what decides.
        error_code: What the body says, 0 where it says nothing; a hint, as some registries always answer 0.
        detail: Its message, for an operator's eyes; registries speak of schemas, never of records.
    """

    code = "registry_refused"

    def __init__(self, what: str, *, status: int, error_code: int, detail: str) -> None:
        """Say `what` was refused, for one line on the operator's screen."""
        super().__init__(f"{what}: the registry answered {status} (error_code {error_code}) {detail}".rstrip())
        self.status = status
        self.error_code = error_code
        self.detail = detail


class SchemaPendingError(BridgeError):
    """The registry does not know the id, but not for long enough to believe it: replicas lag behind writers."""

    code = "schema_pending"
    retriable = True


class SchemaUnknownError(BridgeError):
    """The registry has said all through the grace that it does not know the id, or it is no Avro record."""

    code = "schema_unknown"
