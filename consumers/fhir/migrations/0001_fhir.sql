-- What is known of each prescription, and what was written of it to the FHIR server.

create table {schema}.prescription (
  key text collate "C" primary key,
  document jsonb not null,
  updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
comment on table {schema}.prescription is 'The facts of each prescription; holds health information';

create table {schema}.resource (
  id text collate "C" primary key,
  key text collate "C" not null,
  type text collate "C" not null,
  server_id text not null
);
create index resource_key on {schema}.resource (key);
comment on table {schema}.resource is 'Each resource that was written';
comment on column {schema}.resource.id is 'Ours: a digest of the prescription and what it is of it';
comment on column {schema}.resource.server_id is 'That of the server; ours unless it chooses ids';

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
