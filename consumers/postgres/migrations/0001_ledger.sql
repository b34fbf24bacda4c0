-- What a consumer group has settled, and what it has set aside. Keys of a table compare as bytes (`collate "C"`): cheaper,
-- in the order that Python sorts them, and no index changes its order with the operating system's locales.

create table {schema}.progress (
  grp text collate "C" not null,
  topic text collate "C" not null,
  part int not null,
  next_offset bigint check (next_offset >= 0),
  last_event_id text,
  -- At random: a sequence that a backup puts back would give an epoch again that a process still has.
  epoch bigint not null default hashtextextended(gen_random_uuid()::text, 0),
  cluster_id text,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (grp, topic, part)
) with (
  -- A row per partition, updated by every transaction: room for its next version on the same page.
  fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000
);
comment on table {schema}.progress is 'How far a group is in a partition, and who may move it';
comment on column {schema}.progress.next_offset is
  'Everything below is settled; null: claimed, and nothing settled yet';
comment on column {schema}.progress.last_event_id is 'ce_id of the record at next_offset - 1, to know the topic again';
comment on column {schema}.progress.epoch is 'A new one with each claim; the transactions of any other fail';
comment on column {schema}.progress.cluster_id is 'Kafka cluster that the offsets belong to';

create table {schema}.inbox (
  grp text collate "C" not null,
  source text collate "C" not null,
  event_id text collate "C" not null,
  body_sha256 bytea not null,
  settled_at timestamptz not null default now(),
  primary key (grp, source, event_id)
);
comment on table {schema}.inbox is 'Events whose effects are done, or were skipped';
comment on column {schema}.inbox.body_sha256 is 'Of the delivery; empty for a foreign record';
comment on column {schema}.inbox.settled_at is 'When the effects were done, or given up';

create table {schema}.settled (
  grp text collate "C" not null,
  topic text collate "C" not null,
  part int not null,
  "offset" bigint not null,
  primary key (grp, topic, part, "offset")
) with (
  -- Small, and every row is soon deleted.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000
);
comment on table {schema}.settled is 'Records settled at or above next_offset; pruned below it';

create table {schema}.parked_key (
  grp text collate "C" not null,
  topic text collate "C" not null,
  key text collate "C" not null,
  part int not null,
  class text not null,
  code text not null,
  attempts int not null,
  parked_at timestamptz not null default clock_timestamp(),
  release_requested_at timestamptz,
  release_requested_by text,
  primary key (grp, topic, part, key)
);
create index parked_key_by_name on {schema}.parked_key (grp, topic, key);
create index parked_key_to_release on {schema}.parked_key (grp, topic, part, release_requested_at)
  where release_requested_at is not null;
comment on table {schema}.parked_key is
  'Keys set aside: later records of a key in its partition wait behind the one that failed. Its row is the lock of all that concerns it';
comment on column {schema}.parked_key.key is
  'The record key where it is text; else \x and hex, \null@ and the offset for none, \h and a SHA-256 for a very long one';
comment on column {schema}.parked_key.class is 'Class of failure: transient, permanent, poison, bug; operator: set aside by hand';
comment on column {schema}.parked_key.release_requested_at is 'From when on the owner may release it; null: not asked for';

create table {schema}.parked_event (
  grp text collate "C" not null,
  topic text collate "C" not null,
  part int not null,
  "offset" bigint not null,
  key text collate "C" not null,
  timestamp_ms bigint not null,
  raw_key bytea,
  value bytea,
  headers jsonb not null,
  source text not null,
  event_id text not null,
  event_type text not null,
  body_sha256 text not null,
  class text not null,
  code text not null,
  attempts int not null,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (grp, topic, part, "offset"),
  foreign key (grp, topic, part, key) references {schema}.parked_key
);
create index parked_event_of_key on {schema}.parked_event (grp, topic, part, key, "offset");
comment on table {schema}.parked_event is 'Records of parked keys, whole; released from the lowest offset of a key on';
comment on column {schema}.parked_event.headers is '[[name, base64 of its bytes], …], in order';
comment on column {schema}.parked_event.class is 'As of the key; behind: it waits for an earlier one';

create table {schema}.park_breaker (
  grp text collate "C" primary key,
  opened_at timestamptz
);
comment on table {schema}.park_breaker is 'Groups that have parked too much at some time';
comment on column {schema}.park_breaker.opened_at is 'Since when no process of the group settles anything; null: closed';

create table {schema}.job (
  grp text collate "C" not null,
  number int not null,
  ran_at timestamptz not null,
  primary key (grp, number)
);
comment on table {schema}.job is 'When each periodic job of a group ran last, whichever process ran it';

create table {schema}.audit (
  number bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  actor text not null,
  grp text collate "C" not null,
  verb text not null,
  topic text,
  part int,
  key text,
  "offset" bigint,
  source text,
  event_id text,
  body_sha256 text,
  code text,
  inbox_written boolean,
  reason text not null
);
create index audit_of_group on {schema}.audit (grp, number);
comment on table {schema}.audit is 'What operators did; a row for each record that a decision concerned';
comment on column {schema}.audit.code is 'Why the record was parked';
comment on column {schema}.audit.inbox_written is
  'Whether the decision put the event into the inbox: false when an equal id was there before';
