-- One row per prescription, and everything that was ever said. Ids compare as bytes (`collate "C"`), as the merging
-- code sorts them, whatever locale the database has.

create table {schema}.prescription (
  prescription_id text collate "C" primary key,
  source text not null,
  environment text,
  account_id text,
  transmission text not null,
  order_status text not null,
  dispense text not null,
  fulfillment text not null,
  shipment text not null,
  display text not null,
  open_requests text[] not null,
  safety text[] not null,
  anomalies int not null,
  stub boolean not null,
  replaced_by text,
  prescriber_order_number text,
  rx_reference_number text,
  patient_id text,
  patient_mrn text,
  patient_name text,
  patient_birth_date date,
  prescriber_id text,
  prescriber_npi text,
  prescriber_name text,
  pharmacy_ncpdp_id text,
  pharmacy_name text,
  medication text,
  medication_ndc text,
  dea_schedule text,
  transmission_at timestamptz,
  cancel_pending_since timestamptz,
  open_since timestamptz,
  cancelled_at timestamptz,
  dispensed_at timestamptz,
  first_event_at timestamptz not null,
  last_event_at timestamptz not null,
  last_event_type text not null,
  events bigint not null,
  facts jsonb not null,
  updated_at timestamptz not null default clock_timestamp()
) with (
  -- Updated some ten times in its life: room for the next version on the same page.
  fillfactor = 70
);
comment on table {schema}.prescription is 'The current state of each prescription; holds health information';
comment on column {schema}.prescription.prescription_id is 'Key of its events; of sources without prescription ids, their own with a prefix';
comment on column {schema}.prescription.source is 'Configured name of the source of its newest event';
comment on column {schema}.prescription.transmission is 'draft, sent, processed, failed';
comment on column {schema}.prescription.order_status is 'active, cancel_pending, cancelled, replaced, rejected';
comment on column {schema}.prescription.dispense is 'none, not_dispensed, partially_dispensed, dispensed, transferred; over all fills';
comment on column {schema}.prescription.fulfillment is 'Newest step at the pharmacy over all its lines, or none';
comment on column {schema}.prescription.shipment is 'delivered if any parcel is, else the newest news of a carrier, or none';
comment on column {schema}.prescription.display is 'The one word to show a person';
comment on column {schema}.prescription.open_requests is 'Ids of renewal and change requests asked and not answered or closed, sorted';
comment on column {schema}.prescription.safety is 'Safety signals that stand, such as dispensed_after_cancel';
comment on column {schema}.prescription.anomalies is 'Contradictions without danger: messages processed after a final failure';
comment on column {schema}.prescription.stub is 'Neither its draft nor its sending has arrived yet';
comment on column {schema}.prescription.replaced_by is 'Prescription id of the replacement, where an answer names it';
comment on column {schema}.prescription.patient_name is 'This and the other columns of people, pharmacy and medication: from the newest event that has them';
comment on column {schema}.prescription.transmission_at is 'When it became what transmission says; null where no message is known';
comment on column {schema}.prescription.cancel_pending_since is 'Earliest cancel request without any answer';
comment on column {schema}.prescription.open_since is 'Earliest of the open requests';
comment on column {schema}.prescription.cancelled_at is 'First approved cancel answer, also one that was taken back';
comment on column {schema}.prescription.dispensed_at is 'Newest of the fills that are dispensed, in whole or in part';
comment on column {schema}.prescription.first_event_at is 'When the first event happened; no time of an event counts beyond its receipt plus five minutes';
comment on column {schema}.prescription.events is 'Its rows in event';
comment on column {schema}.prescription.facts is 'What all columns are worked out from; its form may change';
comment on column {schema}.prescription.updated_at is 'Time of processing: the one column that a rebuild does not reproduce';

create index prescription_by_last_event on {schema}.prescription (last_event_at desc);
-- Ids of others have no bound, and a B-tree refuses a row with a long one.
create index prescription_by_order_number on {schema}.prescription using hash (prescriber_order_number);
create index prescription_by_patient on {schema}.prescription using hash (patient_id);
-- What waits or alarms is few: these stay small.
create index prescription_unconfirmed on {schema}.prescription (transmission_at) where transmission = 'sent';
create index prescription_cancel_pending on {schema}.prescription (cancel_pending_since)
  where cancel_pending_since is not null;
create index prescription_open on {schema}.prescription (open_since) where open_since is not null;
create index prescription_unsafe on {schema}.prescription (dispensed_at) where safety <> '{}';

create table {schema}.event (
  source text collate "C" not null,
  event_id text collate "C" not null,
  prescription_id text collate "C",
  event_type text collate "C" not null,
  occurred_at timestamptz not null,
  received_at timestamptz not null,
  topic text not null,
  partition int not null,
  "offset" bigint not null,
  body jsonb not null,
  primary key (source, event_id)
);
comment on table {schema}.event is 'Every event, once, as it came; holds health information';
comment on column {schema}.event.prescription_id is 'Null: about no prescription (accounts, requests that match none)';
comment on column {schema}.event.occurred_at is 'As the source said; a clock that ran ahead is not put right here';
comment on column {schema}.event.body is 'The whole record: instants ISO 8601 with Z, decimals as text, U+0000 as U+FFFD';

create index event_of_prescription on {schema}.event (prescription_id, occurred_at) where prescription_id is not null;
create index event_of_source on {schema}.event (source, received_at) where event_type <> 'system.ping';
create index event_by_receipt on {schema}.event using brin (received_at);
-- Requests that match no prescription, and the answers that end them.
create index event_unmatched on {schema}.event using hash ((body ->> 'request_id'))
  where prescription_id is null and event_type in ('renewal.requested', 'change.requested');
create index event_answer on {schema}.event using hash ((body ->> 'request_id'))
  where event_type in ('renewal.responded', 'renewal.closed', 'change.responded');

create table {schema}.timer (
  kind text primary key check (kind in ('unconfirmed', 'cancel_unanswered', 'request_open', 'source_silent')),
  after interval not null,
  gaps numeric
);
comment on table {schema}.timer is 'When something has waited too long; for the owner of the schema to change';
comment on column {schema}.timer.after is 'How long is too long; of source_silent: never sooner than this';
comment on column {schema}.timer.gaps is 'Only of source_silent: silent for so many times the usual gap';
-- docs/contract.md, 6, "Timers". The usual gap of a source is nearly the longest of its last thousand, so a few of them are
-- a silence; a quarter of an hour keeps a source that sends every second from being silent at a hiccup.
insert into {schema}.timer values
  ('unconfirmed', '24 hours', null),
  ('cancel_unanswered', '48 hours', null),
  ('request_open', '14 days', null),
  ('source_silent', '15 minutes', 5);

-- What the process sends, a row at a time; instants, dates and JSON as text. A later release that sends more makes new
-- types: the old one may be running beside it.
create type {schema}.prescription_row as (
  prescription_id text,
  source text,
  environment text,
  account_id text,
  transmission text,
  order_status text,
  dispense text,
  fulfillment text,
  shipment text,
  display text,
  open_requests text[],
  safety text[],
  anomalies int,
  stub boolean,
  replaced_by text,
  prescriber_order_number text,
  rx_reference_number text,
  patient_id text,
  patient_mrn text,
  patient_name text,
  patient_birth_date text,
  prescriber_id text,
  prescriber_npi text,
  prescriber_name text,
  pharmacy_ncpdp_id text,
  pharmacy_name text,
  medication text,
  medication_ndc text,
  dea_schedule text,
  transmission_at text,
  cancel_pending_since text,
  open_since text,
  cancelled_at text,
  dispensed_at text,
  first_event_at text,
  last_event_at text,
  last_event_type text,
  events bigint,
  facts text,
  events_before bigint
);
create type {schema}.event_row as (
  source text,
  event_id text,
  prescription_id text,
  event_type text,
  occurred_at timestamptz,
  received_at timestamptz,
  topic text,
  partition int,
  "offset" bigint,
  body text
);
