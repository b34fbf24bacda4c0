"""The settings of `fhir`: `CONSUMER_FHIR__<KEY>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from consumers.fhir.elements import Naming
from consumers.options import TIMEOUT_MAX_S, ServerOptions, Words

NAME = "fhir"
# Prescriptions only: enrollments and pings of `drx.accounts.v1` are about no order.
TOPICS = ("drx.prescriptions.v1",)
# Each lane keeps a database connection for as long as the server takes.
LANES_MAX = 64
_SYSTEM_MAX = 256


def _base(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or ":" not in text or text[-1] not in ":/":
        msg = "an absolute URI that ends with : or /, such as urn:drx: or https://ehr.example/drx/"
        raise ValueError(msg)
    return text


def _system(text: str) -> str:
    if text and (not text.isascii() or not text.isprintable() or " " in text or ":" not in text):
        msg = "an absolute URI, such as https://ehr.example/mrn or urn:oid:1.2.36"
        raise ValueError(msg)
    return text


System = Annotated[str, Field(max_length=_SYSTEM_MAX), AfterValidator(_system)]


class FhirOptions(ServerOptions):
    """All that can be set.

    Attributes:
        base_url: The server's base, such as `https://ehr.example/fhir`.
        allow_http: Take an `http://` URL; what is sent is health information.
        token_file: The bearer token; read anew when the file changes.
        smart_token_url: Token endpoint of SMART Backend Services, in the place of `token_file`.
        smart_client_id: Who we are there.
        smart_key_file: PEM of the private key that proves it, RSA or EC P-384.
        smart_key_id: Name of that key there (`kid`), if it has one.
        smart_scope: What is asked for.
        ids: `client`: we choose the ids of resources; `server`: it does, and finds ours by an identifier.
        bundle: Write what one event changes in one transaction; without, one PUT after another.
        references: `logical` names the patient by identifier; `search` refers to the server's own Patient.
        unmatched: What becomes of an event whose patient `search` does not find.
        deleted: What becomes of a resource that somebody deleted: written again, or left alone with what refers to it.
        complete_after_refills: An order is `completed` once as many fills as it allows are dispensed.
        provenance: Write where each event's changes come from.
        mrn_system: Identifier system of medical record numbers; `{account}` in it is the account id, since such a
            number is one person's only there.
        patient_system: Identifier system of the source's patient ids.
        identifier_base: What the identifier systems of our own begin with.
        imports: Whether records that were imported are sent.
        topics: Topics that it reads.
        lanes: Prescriptions written at one time.
        timeout_s: For one request as a whole.
    """

    base_url: Annotated[str, Field(min_length=1, max_length=2048)]
    allow_http: bool = False
    token_file: Path | None = None
    smart_token_url: Annotated[str, Field(max_length=2048)] = ""
    smart_client_id: Annotated[str, Field(max_length=_SYSTEM_MAX)] = ""
    smart_key_file: Path | None = None
    smart_key_id: Annotated[str, Field(max_length=_SYSTEM_MAX)] = ""
    smart_scope: Annotated[str, Field(min_length=1, max_length=2048)] = "system/*.read system/*.write"
    ids: Literal["client", "server"] = "client"
    bundle: bool = True
    references: Literal["logical", "search"] = "logical"
    unmatched: Literal["park", "logical"] = "park"
    deleted: Literal["revive", "skip"] = "revive"
    complete_after_refills: bool = False
    provenance: bool = True
    mrn_system: System = ""
    patient_system: System = ""
    identifier_base: Annotated[str, Field(min_length=3, max_length=_SYSTEM_MAX), AfterValidator(_base)] = "urn:drx:"
    imports: Literal["send", "skip"] = "send"
    topics: Words = TOPICS
    lanes: int = Field(8, ge=1, le=LANES_MAX)
    timeout_s: float = Field(15.0, ge=0.1, le=TIMEOUT_MAX_S)

    @model_validator(mode="after")
    def _whole_client(self) -> Self:
        client = (self.smart_token_url, self.smart_client_id, self.smart_key_file)
        if any(client) and not (all(client) and self.token_file is None):
            msg = "smart_token_url, smart_client_id and smart_key_file belong together, and not with token_file"
            raise ValueError(msg)
        return self

    def naming(self, account: str = "") -> Naming:
        """Return the identifier systems for an account; those that are not set are our own."""
        base = self.identifier_base
        mrn = self.mrn_system or f"{base}mrn{base[-1]}{{account}}"
        return Naming(
            base,
            mrn=mrn.replace("{account}", quote(account, safe="")),
            patient=self.patient_system or f"{base}patient",
        )
