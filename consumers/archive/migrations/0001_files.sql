-- The lake that these tables belong to, written below its root as well: tables that are made anew are another archive.
create table {schema}.lake (
  id uuid not null default gen_random_uuid(),
  only_one boolean primary key default true check (only_one)
);

insert into {schema}.lake default values;

-- Files of the lake. A row is written by the transaction that settles the events in the file, or by one that replaces the
-- rows of files that were merged into it, so a file without a row holds nothing that counts. Published: it has its path
-- below the root, where readers see it.
create table {schema}.file (
  staged text collate "C" primary key,
  topic text,
  part int,
  first_offset bigint,
  last_offset bigint,
  row_count int not null,
  bytes bigint not null,
  columns text not null,
  path text collate "C" not null unique,
  directory text collate "C" not null generated always as (regexp_replace(path, '/[^/]*$', '')) stored,
  gathers boolean not null default false,
  committed_at timestamptz not null default now(),
  published_at timestamptz
);
comment on column {schema}.file.part is 'Null of a merged file, as topic and offsets are';
comment on column {schema}.file.columns is 'Equal for files of the same columns';
comment on column {schema}.file.gathers is 'Waits to be merged with others before it is published';

create index on {schema}.file (committed_at) where published_at is null;

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on all tables in schema {schema} to drx_consumer;
    grant insert, update, delete on {schema}.file to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on all tables in schema {schema} to drx_operator;
  end if;
end
$$;
