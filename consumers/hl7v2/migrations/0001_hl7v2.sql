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
  source text collate "C" not null,
  event_id text collate "C" not null,
  key text collate "C" not null,
  kind text not null,
  sent_at timestamptz not null default clock_timestamp()
);
create index sent_key on {schema}.sent (key);
comment on table {schema}.sent is 'Which event each acknowledged message was made of';

create table {schema}.held (
  number bigint generated always as identity primary key,
  key text collate "C" not null,
  event text not null,
  code text,
  held_at timestamptz not null default clock_timestamp()
);
create index held_key on {schema}.held (key);
comment on table {schema}.held is 'Events that wait until their patient is known; holds health information';
comment on column {schema}.held.code is 'Why the receiver has refused it since; it is not sent again';

-- The process that applies events changes no table; whoever starts or moves its group looks first whether the tables are
-- up to date. The roles are those of the runtime's own tables.
do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on all tables in schema {schema} to drx_consumer;
    grant insert, update on {schema}.prescription to drx_consumer;
    grant insert on {schema}.sent to drx_consumer;
    grant insert, update, delete on {schema}.held to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on {schema}.schema_migration to drx_operator;
  end if;
end
$$;
