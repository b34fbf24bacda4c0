"""The nouns of the embedded registry: a registration, a level, a fault, and what must be known about Avro."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bridge.errors import BridgeError

# What the lock's subjects are held to (docs/adr/0003-schema-evolution.md), and any other until its level is set.
LEVEL_DEFAULT: Final = "FULL_TRANSITIVE"
LEVELS: Final = frozenset(
    {"NONE", *(f"{way}{reach}" for way in ("BACKWARD", "FORWARD", "FULL") for reach in ("", "_TRANSITIVE"))}
)


class RegistryFaultError(BridgeError):
    """A request that cannot be met; the first three digits of Confluent's `error_code` are its HTTP status."""

    code = "registry_fault"

    def __init__(self, error_code: int, message: str) -> None:
        """Keep what the answer says."""
        super().__init__(message)
        self.error_code = error_code
        self.message = message


class SchemaRules(Protocol):
    """What the store must know about Avro."""

    def form(self, text: str) -> str:
        """Return the one spelling of all texts that say the same schema; RegistryFaultError 42201 if it is none."""

    def incompatibilities(self, new: str, olds: Sequence[str], *, level: str, ours: bool) -> list[str]:
        """Say why `new` may not follow the schemas `olds`, oldest first; empty when it may.

        Args:
            new: Text of a schema.
            olds: Texts of those it is held against.
            level: One of `LEVELS`.
            ours: The subject is the bridge's own, so its stricter rules hold too.
        """


@dataclass(frozen=True, slots=True)
class Registration:
    """One schema as one version of one subject.

    Attributes:
        subject: Name, such as `drx.prescription.v1-drx.v1.PrescriptionSent`.
        version: Counts from 1 within the subject.
        id: Number in the wire format; the same schema has the same id under every subject.
        guid: The same for the header form of the wire format.
        schema: Text as it was registered.
        form: `SchemaRules.form` of it.
    """

    subject: str
    version: int
    id: int
    guid: str
    schema: str = field(repr=False)
    form: str = field(repr=False)
