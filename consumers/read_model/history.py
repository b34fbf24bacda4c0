"""Events of the history as JSON that PostgreSQL accepts, and the condition for pruning."""

from collections.abc import Mapping
from operator import eq
from typing import Any

import orjson

from bridge.contract.events import OTHER_REPORTED
from bridge.event import Event, plain
from consumers.api import History
from consumers.postgres.text import TEXT_MAX_BYTES, stored_text

# The only character of JSON and Avro that PostgreSQL's text and jsonb refuse.
NUL, REPLACEMENT = "\x00", "\ufffd"
_NUL_IN_JSON = rb"\u0000"
# Keys of prescribers, of accounts, and of requests that match no prescription.
_ACCOUNT_TYPES = frozenset({"prescriber.enrollment_changed", "system.ping"})
_REQUEST_PREFIX = "req:"
# `t` is a row of `event`, $3 the horizon. A prescription has ended if nothing is open or a safety signal, and one of
# its state machines is in a final state. A sent one without any pharmacy event has not ended. The subqueries yield
# scalars, which PostgreSQL looks up by an index. For `exists` it would build a table of all ended ones, again for each
# few thousand events.
_ENDED = """
case
when t.prescription_id is not null then (
  select p.last_event_at < $3 and p.open_since is null and p.cancel_pending_since is null and p.safety = '{}'
    and (p.order_status in ('cancelled', 'replaced', 'rejected')
      or p.dispense in ('dispensed', 'not_dispensed', 'transferred') or p.shipment = 'delivered')
  from "$schema".prescription p where p.prescription_id = t.prescription_id
)
when t.event_type in ('renewal.requested', 'change.requested') then (
  select count(*) > 0 from "$schema".event a
  where a.event_type in ('renewal.responded', 'renewal.closed', 'change.responded')
    and a.body ->> 'request_id' = t.body ->> 'request_id' and a.source = t.source
    and coalesce(a.body ->> 'decision', a.body ->> 'reason') <> 'UNKNOWN'
)
else $3::timestamptz is not null
end and not (
  t.event_type in ('renewal.responded', 'renewal.closed', 'change.responded') and (
    select count(*) > 0 from "$schema".event q
    where q.prescription_id is null and q.event_type in ('renewal.requested', 'change.requested')
      and q.body ->> 'request_id' = t.body ->> 'request_id' and q.source = t.source
  )
)
"""


def prescription_of(event: Event) -> str | None:
    """Return the event's prescription id, or None: the record's key, so that one partition writes a row."""
    if event.type in _ACCOUNT_TYPES:
        return None
    if event.value.get("prescription_id") is None and (
        event.type == OTHER_REPORTED or event.key.startswith(_REQUEST_PREFIX)
    ):
        return None
    return event.key


def body_of(event: Event) -> bytes:
    """Return the record as JSON: instants ISO 8601 with `Z`, dates, decimals as strings, bytes in base64."""
    return orjson.dumps(event.value, default=plain, option=orjson.OPT_UTC_Z)


def storable(event: Event) -> tuple[Event, bytes, int]:
    """Return the event without U+0000, its body, and the number of changed strings.

    Ids, keys and sources of foreign records may also be too long for an index, and may differ from the record's.
    """
    body = body_of(event)
    names = (event.id, event.source, event.key)
    all_names = "".join(names)
    if _NUL_IN_JSON not in body and NUL not in all_names and len(all_names) * 4 <= TEXT_MAX_BYTES:  # nearly always
        return event, body, 0
    stored = [stored_text(name) for name in names]
    if _NUL_IN_JSON not in body and all(map(eq, stored, names)):
        return event, body, 0
    value, changed = _cleaned(event.value)
    clean = event._replace(id=stored[0], source=stored[1], key=stored[2], value=value)
    return clean, body_of(clean), changed or sum(NUL in name for name in names)


def _clean(text: str) -> str:
    return text.replace(NUL, REPLACEMENT)


def _cleaned(value: Any) -> tuple[Any, int]:
    """Return a value without U+0000 at any depth, and the number of changed strings."""
    if isinstance(value, str):
        return _clean(value), int(NUL in value)
    if isinstance(value, Mapping):
        return _cleaned_members(value)
    if isinstance(value, list):
        items = [_cleaned(item) for item in value]
        return [item for item, _ in items], sum(changed for _, changed in items)
    return value, 0


def _cleaned_members(members: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    cleaned: dict[str, Any] = {}
    total = 0
    for name, member in members.items():
        new = _clean(name)
        while new != name and (new in members or new in cleaned):
            new += REPLACEMENT  # keeps names distinct that differ only in this character
        cleaned[new], changed = _cleaned(member)
        total += changed + (new != name)
    return cleaned, total


def prunable(schema: str) -> History:
    """Return the prunable history of `schema`, a validated name."""
    return History(f'"{schema}".event', "received_at", _ENDED.replace("$schema", schema))
