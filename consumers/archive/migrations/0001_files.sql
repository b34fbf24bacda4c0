-- The lake that these tables belong to, written below its root as well: tables that are made anew are another archive.
create table {schema}.lake (
  id uuid not null default gen_random_uuid(),
  only_one boolean primary key default true check (only_one)
);

insert into {schema}.lake default values;

-- Files of the lake. A row is written by the transaction that settles the events in the file, so a file without a row
-- holds nothing that counts. Published: it has its path below the root, where readers see it.
create table {schema}.file (
  staged text collate "C" primary key,
  topic text not null,
  part int not null,
  first_offset bigint not null,
  last_offset bigint not null,
  row_count int not null,
  bytes bigint not null,
  sha256 text not null,
  path text collate "C" not null unique,
  committed_at timestamptz not null default now(),
  published_at timestamptz
);

create index on {schema}.file (committed_at) where published_at is null;

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on all tables in schema {schema} to drx_consumer;
    grant insert, update on {schema}.file to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on all tables in schema {schema} to drx_operator;
  end if;
end
$$;
