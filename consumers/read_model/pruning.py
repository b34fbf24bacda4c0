"""Select the rows of the history that can be pruned."""

from __future__ import annotations

from consumers.api import History

# `t` is a row of `event`, $3 the horizon. A prescription has ended when nothing of it waits or alarms and one of its
# machines is in a final state. One that was sent, without any event of a pharmacy, has not.
_ENDED = """
case
when t.prescription_id is not null then exists (
  select from "$schema".prescription p where p.prescription_id = t.prescription_id and p.last_event_at < $3
    and p.open_since is null and p.cancel_pending_since is null and p.safety = '{}'
    and (p.order_status in ('cancelled', 'replaced', 'rejected')
      or p.dispense in ('dispensed', 'not_dispensed', 'transferred') or p.shipment = 'delivered')
)
when t.event_type in ('renewal.requested', 'change.requested') then exists (
  select from "$schema".event a where a.event_type in ('renewal.responded', 'renewal.closed', 'change.responded')
    and a.body ->> 'request_id' = t.body ->> 'request_id' and a.source = t.source
    and coalesce(a.body ->> 'decision', a.body ->> 'reason') <> 'UNKNOWN'
)
else $3::timestamptz is not null
end and not (
  t.event_type in ('renewal.responded', 'renewal.closed', 'change.responded') and exists (
    select from "$schema".event q
    where q.prescription_id is null and q.event_type in ('renewal.requested', 'change.requested')
      and q.body ->> 'request_id' = t.body ->> 'request_id' and q.source = t.source
  )
)
"""


def history(schema: str) -> History:
    """Return what can be pruned of the tables of `schema`, a checked name."""
    return History(f'"{schema}".event', "received_at", _ENDED.replace("$schema", schema))
