-- Records that handlers publish: written in the transaction that settles the event they come from, deleted when Kafka
-- has acknowledged them.

create table {schema}.outbox (
  id bigint generated always as identity primary key,
  grp text collate "C" not null,
  source_topic text collate "C" not null,
  source_part int not null,
  topic text not null,
  key bytea,
  value bytea,
  headers jsonb not null default '{}',
  published_at timestamptz not null default clock_timestamp()
);
create index outbox_of_partition on {schema}.outbox (grp, source_topic, source_part, id);
comment on table {schema}.outbox is 'Published by a handler and not yet acknowledged by Kafka';
comment on column {schema}.outbox.source_topic is 'Where the event was read: whoever owns that partition writes the record';
comment on column {schema}.outbox.published_at is 'When the handler published it';

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant select, insert, delete on {schema}.outbox to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant select, delete on {schema}.outbox to drx_operator;
  end if;
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant select (id, grp, source_topic, source_part, topic, published_at) on {schema}.outbox to drx_reader;
  end if;
end
$$;
