-- What is known of each prescription, what was sent of it, and what waits for its patient.

create table {schema}.prescription (
  key text collate "C" primary key,
  document text not null,
  ordered boolean not null default false,
  updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
comment on table {schema}.prescription is 'Who and what each prescription is about; holds health information';
comment on column {schema}.prescription.document is 'JSON text: jsonb has no U+0000';
comment on column {schema}.prescription.ordered is 'Whether the receiver has had a new order of it';

create table {schema}.sent (
  control_id text collate "C" primary key,
  key text collate "C" not null,
  source text collate "C" not null,
  event_id text collate "C" not null,
  kind text not null,
  sent_at timestamptz not null default clock_timestamp()
);
create index sent_key on {schema}.sent (key);
comment on table {schema}.sent is 'Which event each acknowledged message was made of';

create table {schema}.held (
  key text collate "C" not null,
  number bigint generated always as identity,
  event text not null,
  held_at timestamptz not null default clock_timestamp(),
  primary key (key, number)
);
comment on table {schema}.held is 'Events that wait until their patient is known; holds health information';
