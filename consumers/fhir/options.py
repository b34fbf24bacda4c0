"""The settings of `fhir`: `CONSUMER_FHIR__<KEY>`, described in its `README.md`."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from consumers.fhir.elements import Naming
from consumers.options import ORDER_TOPICS, TIMEOUT_MAX_S, HttpOptions, Imports, Topics, is_plain

NAME = "fhir"
LANES_MAX = 64
_SYSTEM_MAX = 256


def _base(text: str) -> str:
    if not is_plain(text) or ":" not in text or text[-1] not in ":/":
        raise ValueError("an absolute URI that ends with : or /, such as urn:drx: or https://ehr.example/drx/")
    return text


def _system(text: str) -> str:
    if text and (not is_plain(text) or ":" not in text):
        raise ValueError("an absolute URI, such as https://ehr.example/mrn or urn:oid:1.2.36")
    return text


System = Annotated[str, Field(max_length=_SYSTEM_MAX), AfterValidator(_system)]


class FhirOptions(HttpOptions):
    """The settings of `fhir`."""

    base_url: Annotated[str, Field(min_length=1, max_length=2048)]
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
    imports: Imports = "send"
    topics: Topics = ORDER_TOPICS
    timeout_s: float = Field(15.0, ge=0.1, le=TIMEOUT_MAX_S)
    lanes: int = Field(8, ge=1, le=LANES_MAX)

    @model_validator(mode="after")
    def _whole_client(self) -> Self:
        client = (self.smart_token_url, self.smart_client_id, self.smart_key_file)
        if any(client) and not (all(client) and self.token_file is None):
            msg = "smart_token_url, smart_client_id and smart_key_file belong together, and not with token_file"
            raise ValueError(msg)
        return self

    def naming(self, account: str = "") -> Naming:
        """Return the identifier systems for an account; unset ones are our own."""
        base = self.identifier_base
        mrn = self.mrn_system or f"{base}mrn{base[-1]}{{account}}"
        return Naming(
            base, mrn=mrn.replace("{account}", quote(account, safe="")), patient=self.patient_system or f"{base}patient"
        )
