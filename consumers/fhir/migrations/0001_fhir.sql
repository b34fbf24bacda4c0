-- What is known of each prescription, and what was written of it to the FHIR server.

create table {schema}.prescription (
  key text collate "C" primary key,
  document jsonb not null,
  updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
comment on table {schema}.prescription is 'The facts of each prescription; holds health information';

create table {schema}.resource (
  type text collate "C" not null,
  id text collate "C" not null,
  key text collate "C" not null,
  version text not null,
  owned_sha256 text not null,
  others jsonb not null,
  written_at timestamptz not null default clock_timestamp(),
  primary key (type, id)
) with (fillfactor = 70);
create index resource_key on {schema}.resource (key);
comment on table {schema}.resource is 'Each resource as last written; holds health information';
comment on column {schema}.resource.version is 'Version that the server gave it; empty if it did not say';
comment on column {schema}.resource.owned_sha256 is 'Digest of the elements that are ours';
comment on column {schema}.resource.others is 'What others say in it';

-- The process that applies events changes no table and deletes nothing; whoever starts or moves its group looks first
-- whether the tables are up to date. The roles are those of the runtime's own tables.
do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on all tables in schema {schema} to drx_consumer;
    grant insert, update on {schema}.prescription, {schema}.resource to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on {schema}.schema_migration to drx_operator;
  end if;
end
$$;
