-- Which workflows were started for what waits too long.

create table {schema}.started (
  kind text collate "C" not null,
  subject text collate "C" not null,
  since timestamptz not null,
  workflow_id text collate "C" not null,
  times int not null default 1,
  started_at timestamptz not null default clock_timestamp(),
  resolved_at timestamptz,
  primary key (kind, subject, since)
);
create index started_open on {schema}.started (kind) where resolved_at is null;
comment on table {schema}.started is 'Workflows started for what has waited too long';
comment on column {schema}.started.subject is 'Prescription id, req:REQUEST of a question that matches none, or source';
comment on column {schema}.started.since is 'Since when it waits; the same subject may wait again';
comment on column {schema}.started.times is 'How often the same wait was overdue: an answer may be taken back';
comment on column {schema}.started.resolved_at is 'When it waited no longer, and the workflow was told';

-- The process that applies events changes no table; whoever starts or moves its group looks first whether the tables are
-- up to date. The roles are those of the runtime's own tables.
do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on all tables in schema {schema} to drx_consumer;
    grant insert, update on {schema}.started to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on {schema}.schema_migration to drx_operator;
  end if;
end
$$;
