-- What dashboards show to operators: words of the contract, codes and times, without ids of prescriptions, names and free
-- text. Of one prescription only to who has its id. All run with the rights of the owner of the tables.

create function {schema}.masked_status(id text) returns table (
  display text, transmission text, order_status text, dispense text, fulfillment text, shipment text, open_requests int,
  safety text[], anomalies int, stub boolean, source text, account_id text, transmission_at timestamptz,
  cancel_pending_since timestamptz, open_since timestamptz, first_event_at timestamptz, last_event_at timestamptz,
  last_event_type text, events bigint
) language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select p.display, p.transmission, p.order_status, p.dispense, p.fulfillment, p.shipment, cardinality(p.open_requests),
    p.safety, p.anomalies, p.stub, p.source, p.account_id, p.transmission_at, p.cancel_pending_since, p.open_since,
    p.first_event_at, p.last_event_at, p.last_event_type, p.events
  from {schema}.prescription p where p.prescription_id = id
$$;
comment on function {schema}.masked_status is 'The state of a prescription, in words of the contract';

create function {schema}.masked_history(id text) returns table (
  at timestamptz, machine text, word text, event_type text, source text, event_id text, received_at timestamptz, topic text,
  partition int, "offset" bigint
) language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select least(e.occurred_at, e.received_at + interval '5 minutes'),
    case
      when e.event_type in ('prescription.created', 'prescription.sent', 'prescription.processed',
        'prescription.transmission_failed') then 'transmission'
      when e.event_type like 'cancel.%' then 'order'
      when e.event_type like 'renewal.%' or e.event_type like 'change.%' then 'request'
      when e.event_type = 'fill.status_changed' then 'dispense'
      when e.event_type = 'fulfillment.status_changed' then 'fulfillment'
      when e.event_type = 'shipment.status_changed' then 'shipment'
    end,
    -- A word that the contract does not know stands in another field, and changes no state.
    nullif(case e.event_type
      when 'prescription.created' then 'draft'
      when 'prescription.sent' then 'sent'
      when 'prescription.processed' then 'processed'
      when 'prescription.transmission_failed' then 'failed'
      when 'cancel.requested' then 'cancel_pending'
      when 'cancel.responded' then
        case e.body ->> 'decision' when 'approved' then 'cancelled' when 'UNKNOWN' then null else 'active' end
      when 'renewal.requested' then 'open'
      when 'change.requested' then 'open'
      when 'renewal.responded' then 'answered'
      when 'change.responded' then 'answered'
      when 'renewal.closed' then 'closed'
      when 'fill.status_changed' then e.body ->> 'fill_status'
      when 'fulfillment.status_changed' then e.body ->> 'fulfillment_status'
      when 'shipment.status_changed' then e.body ->> 'shipment_status'
    end, 'UNKNOWN'),
    e.event_type, e.source, e.event_id, e.received_at, e.topic, e.partition, e."offset"
  from {schema}.event e where e.prescription_id = id
$$;
comment on function {schema}.masked_history is
  'The events of a prescription, and which machine each concerns; order by at, event_id is nearly the order of facts';

create function {schema}.masked_waits(id text) returns table (kind text, since timestamptz, waits interval)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select o.kind, o.since, o.waits from {schema}.overdue o where o.prescription_id = id
$$;
comment on function {schema}.masked_waits is 'What of a prescription has waited longer than its timer';

create view {schema}.masked_overdue as
select kind, account_id, source, since, waits from {schema}.overdue;
comment on view {schema}.masked_overdue is 'What has waited longer than its timer; names nobody';

create view {schema}.masked_safety as
select kind, source, account_id, cancelled_at, dispensed_at from {schema}.safety_signal;
comment on view {schema}.masked_safety is 'That somebody must call somebody now; names nobody';

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant select on {schema}.masked_overdue, {schema}.masked_safety to drx_reader;
    grant execute on function {schema}.masked_status, {schema}.masked_history, {schema}.masked_waits to drx_reader;
  end if;
  if exists (select from pg_roles where rolname = 'drx_phi_reader') then
    grant select on {schema}.masked_overdue, {schema}.masked_safety to drx_phi_reader;
  end if;
end
$$;
