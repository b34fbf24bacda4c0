"""Bodies of vendors for the profile tests: the samples, whole or edited, through the profile of each."""

import json
from collections.abc import Mapping
from typing import Any

from bridge.event import Event, ParkReason
from bridge.mapping.lookup import load_profile
from bridge.mapping.profile import Mapped, Profile, read_body
from tests.unit.profile_documents import SAMPLES, a_delivery

ACCOUNT = {"account_id": "acct_dev"}
PROFILES: Mapping[str, Profile] = {
    name: load_profile(name, ACCOUNT) for name in ("digitalrx_pharmacy", "dosespot_push", "photon_cloudevents")
}
ROWS = [row for row in json.loads((SAMPLES / "manifest.json").read_bytes()) if row["profile"] in PROFILES]


def push(profile: Profile | str, body: Any, **delivery: Any) -> Mapped | ParkReason:
    """Parse and map a body, bytes or JSON values, as the pipeline does."""
    profile = PROFILES[profile] if isinstance(profile, str) else profile
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    document = read_body(profile, content)
    return document if isinstance(document, ParkReason) else profile.map(a_delivery(content, **delivery), document)


def sample(name: str) -> Any:
    """Return the document of the sample whose name begins with this."""
    (path,) = SAMPLES.glob(f"profiles/{name}_*.json")
    return json.loads(path.read_bytes())


def outcome_of(profile: Profile | str, body: Any, **delivery: Any) -> Mapped:
    outcome = push(profile, body, **delivery)
    assert isinstance(outcome, Mapped), outcome
    return outcome


def events(profile: Profile | str, body: Any, **delivery: Any) -> tuple[Event, ...]:
    return outcome_of(profile, body, **delivery).events


def event_of(profile: Profile | str, body: Any, **delivery: Any) -> Event:
    (event,) = events(profile, body, **delivery)
    return event


def parked(profile: Profile | str, body: Any) -> ParkReason:
    outcome = push(profile, body)
    assert isinstance(outcome, ParkReason), outcome
    return outcome


def said(event: Event) -> dict[str, Any]:
    """Return a record's fields after the leading ones, without nulls and extensions."""
    leading = ("event_id", "event_type", "contract_version", "occurred_at", "received_at", "source", "environment")
    return {
        name: value
        for name, value in event.value.items()
        if value is not None and name not in (*leading, "extensions", "account_id", "prescription_id", "correlation_id")
    }
