-- Requests that match no prescription wait and are overdue like any other. The timers ask every minute, so that their
-- questions are found by an index; what an answer is about, `event_answer` finds.

create index event_unmatched_by_receipt on {schema}.event (received_at)
  where prescription_id is null and event_type in ('renewal.requested', 'change.requested');
-- Nothing looks for them by their request.
drop index {schema}.event_unmatched;

create or replace view {schema}.open_request as
select p.prescription_id, p.account_id, r.key as request_id, a.event_type,
  (r.value -> 'asked' ->> 0)::timestamptz as asked_at, a.body, r.value -> 'asked' ->> 3 as source
from {schema}.prescription p
cross join lateral jsonb_each(p.facts -> 'requests') as r
left join {schema}.event a
  on a.source = r.value -> 'asked' ->> 3 and a.event_id = r.value -> 'asked' ->> 2
where p.open_since is not null and r.key = any (p.open_requests)
union all
select null, u.account_id, u.request_id, u.event_type, u.asked_at, u.body, u.source
from (
  -- Asked twice under two event ids, it is one question, and waits since the first.
  select distinct on (q.source, q.body ->> 'request_id') q.source, q.event_type, q.body,
    q.body ->> 'account_id' as account_id, q.body ->> 'request_id' as request_id,
    -- A clock that runs ahead counts as everywhere.
    least(q.occurred_at, q.received_at + interval '5 minutes') as asked_at
  from {schema}.event q
  where q.prescription_id is null and q.event_type in ('renewal.requested', 'change.requested')
  order by q.source, q.body ->> 'request_id', asked_at, q.event_id
) u
-- One look into the index per question: a join of all answers to all questions would read the whole history.
left join lateral (
  select true as found from {schema}.event e
  where e.event_type in ('renewal.responded', 'renewal.closed', 'change.responded')
    and e.body ->> 'request_id' = u.request_id and e.source = u.source
    and coalesce(e.body ->> 'decision', e.body ->> 'reason') <> 'UNKNOWN'
  limit 1
) answer on true
where answer.found is null;

create or replace view {schema}.overdue as
select t.kind, w.prescription_id, w.account_id, w.source, w.since, now() - w.since as waits, w.request_id
from (
  select 'unconfirmed' as kind, prescription_id, account_id, source, transmission_at as since, null as request_id
  from {schema}.prescription
  where transmission = 'sent' and order_status not in ('cancelled', 'replaced')
  union all
  select 'cancel_unanswered', prescription_id, account_id, source, cancel_pending_since, null
  from {schema}.prescription
  where cancel_pending_since is not null
  union all
  select 'request_open', prescription_id, account_id, source, open_since, null
  from {schema}.prescription
  where open_since is not null
  union all
  select 'request_open', prescription_id, account_id, source collate "default", asked_at, request_id
  from {schema}.open_request
  where prescription_id is null
) w
join {schema}.timer t on t.kind = w.kind and w.since < now() - t.after;
comment on column {schema}.overdue.request_id is 'Of a question that matches no prescription';

-- Whoever starts a group or moves it looks first whether the tables are up to date.
do $$
begin
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on {schema}.schema_migration to drx_operator;
  end if;
end
$$;
