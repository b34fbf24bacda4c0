-- What people and BI tools ask for.

create view {schema}.current_status as
select prescription_id, source, account_id, display, transmission, order_status, dispense, fulfillment, shipment,
  open_requests, safety, patient_name, patient_birth_date, prescriber_name, pharmacy_name, medication, last_event_at
from {schema}.prescription;
comment on view {schema}.current_status is 'A prescription in the words a person needs';

create view {schema}.open_request as
select p.prescription_id, p.account_id, r.key as request_id, a.event_type,
  (r.value -> 'asked' ->> 0)::timestamptz as asked_at, a.body
from {schema}.prescription p
cross join lateral jsonb_each(p.facts -> 'requests') as r
left join {schema}.event a
  on a.source = r.value -> 'asked' ->> 3 and a.event_id = r.value -> 'asked' ->> 2
where p.open_since is not null and r.key = any (p.open_requests)
union all
select null, q.body ->> 'account_id', q.body ->> 'request_id', q.event_type, q.occurred_at, q.body
from {schema}.event q
where q.prescription_id is null and q.event_type in ('renewal.requested', 'change.requested')
  and not exists (
    select from {schema}.event e
    where e.event_type in ('renewal.responded', 'renewal.closed', 'change.responded')
      and e.body ->> 'request_id' = q.body ->> 'request_id' and e.source = q.source
      and coalesce(e.body ->> 'decision', e.body ->> 'reason') <> 'UNKNOWN'
  );
comment on view {schema}.open_request is
  'Questions of pharmacies that wait for an answer, each with the record that asked; prescription_id is null where it matches none';

create view {schema}.safety_signal as
select p.prescription_id, p.source, p.account_id, k.kind, p.cancelled_at, p.dispensed_at, p.patient_name,
  p.prescriber_name, p.pharmacy_name, p.medication
from {schema}.prescription p
cross join lateral unnest(p.safety) as k (kind)
where p.safety <> '{}';
comment on view {schema}.safety_signal is 'Somebody must call somebody now';

create view {schema}.overdue as
select t.kind, w.prescription_id, w.account_id, w.source, w.since, now() - w.since as waits
from (
  select 'unconfirmed' as kind, prescription_id, account_id, source, transmission_at as since
  from {schema}.prescription
  where transmission = 'sent' and order_status not in ('cancelled', 'replaced')
  union all
  select 'cancel_unanswered', prescription_id, account_id, source, cancel_pending_since
  from {schema}.prescription
  where cancel_pending_since is not null
  union all
  select 'request_open', prescription_id, account_id, source, open_since
  from {schema}.prescription
  where open_since is not null
) w
join {schema}.timer t on t.kind = w.kind and w.since < now() - t.after;
comment on view {schema}.overdue is 'What has waited longer than its timer; as of the moment it is asked';

create view {schema}.overdue_count as
select t.kind, count(o.kind) as waiting, min(o.since) as oldest
from {schema}.timer t
left join {schema}.overdue o on o.kind = t.kind
where t.kind <> 'source_silent'
group by t.kind;
comment on view {schema}.overdue_count is 'How much is overdue; names nobody';

create view {schema}.source_silence as
with recursive sources (source) as (
  (select source from {schema}.event where event_type <> 'system.ping' order by source limit 1)
  union all
  -- From each source to the next: a distinct over the history would read all of it.
  select (
    select e.source from {schema}.event e
    where e.event_type <> 'system.ping' and e.source > s.source order by e.source limit 1
  )
  from sources s where s.source is not null
),
receipts as (
  select s.source, r.received_at,
    r.received_at - lag(r.received_at) over (partition by s.source order by r.received_at) as gap
  from sources s
  cross join lateral (
    select e.received_at from {schema}.event e
    where e.source = s.source and e.event_type <> 'system.ping' order by e.received_at desc limit 1001
  ) r
),
usual as (
  select source, max(received_at) as last_received_at, count(gap) as gaps,
    percentile_cont(0.95) within group (order by gap) as usual_gap
  from receipts group by source
)
select u.source, u.last_received_at, now() - u.last_received_at as silent_for, u.usual_gap,
  -- Fewer gaps than this say nothing about what is usual.
  u.gaps >= 20 and now() - u.last_received_at > greatest(t.after, u.usual_gap * t.gaps::float8) as silent
from usual u
cross join {schema}.timer t
where t.kind = 'source_silent';
comment on view {schema}.source_silence is
  'Whether a source is silent for longer than is usual for it: the 95th percentile of its last 1,000 gaps, pings aside';

create view {schema}.timeline as
select prescription_id, least(occurred_at, received_at + interval '5 minutes') as counts_from,
  coalesce((body ->> 'sequence')::bigint, 0) as sequence, event_id, source, event_type, occurred_at, received_at, body
from {schema}.event
where prescription_id is not null;
comment on view {schema}.timeline is
  'What was said of a prescription; order by counts_from, sequence, event_id, source is the order of facts';

create view {schema}.status_count as
select account_id, display, count(*) as prescriptions
from {schema}.prescription group by account_id, display;
comment on view {schema}.status_count is 'Prescriptions of each account by the word displayed';

create view {schema}.daily_event as
select (received_at at time zone 'UTC')::date as day, source, event_type, count(*) as events
from {schema}.event group by 1, 2, 3;
comment on view {schema}.daily_event is 'Events by the UTC day of their receipt';

create view {schema}.daily_fill as
select ((f.value -> 0 ->> 0)::timestamptz at time zone 'UTC')::date as day, p.account_id, f.value ->> 1 as fill_status, count(*) as fills
from {schema}.prescription p
cross join lateral jsonb_each(p.facts -> 'fills') as f
group by 1, 2, 3;
comment on view {schema}.daily_fill is 'Fills by the day of their newest fact and what it says';

create view {schema}.daily_transmission as
select (m.sent at time zone 'UTC')::date as day, m.account_id, count(*) as messages,
  count(m.processed) as processed, count(m.failed) filter (where m.processed is null) as failed,
  percentile_cont(0.5) within group (order by m.processed - m.sent) as median_to_processed
from (
  select p.account_id, (v.value -> 'sent' ->> 0)::timestamptz as sent,
    (v.value -> 'processed' ->> 0)::timestamptz as processed, (v.value -> 'failed' ->> 0)::timestamptz as failed
  from {schema}.prescription p
  cross join lateral jsonb_each(p.facts -> 'messages') as v
) m
where m.sent is not null
group by 1, 2;
comment on view {schema}.daily_transmission is 'Messages by the UTC day of their sending: how many arrived, and how fast';
