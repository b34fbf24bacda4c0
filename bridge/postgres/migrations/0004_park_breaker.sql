-- What stops a group that parks too much outlives its processes: who opened it, and from when on parked records count.

create table {schema}.park_breaker (
  grp text collate "C" primary key,
  opened_at timestamptz,
  counted_from timestamptz not null default '-infinity'
);
comment on table {schema}.park_breaker is 'Groups that have parked too much at some time';
comment on column {schema}.park_breaker.opened_at is 'Since when no process of the group settles anything; null: closed';
comment on column {schema}.park_breaker.counted_from is 'When an operator last closed it: what was parked before is known';

alter table {schema}.parked_event add column group_offset bigint;
comment on column {schema}.parked_event.group_offset is
  'Sum of the next_offset of the group when the record failed; null: it did not, or that was before this column';

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant select, insert, update on {schema}.park_breaker to drx_consumer;
  end if;
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant select, update, delete on {schema}.park_breaker to drx_operator;
  end if;
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant select on {schema}.park_breaker to drx_reader;
  end if;
end
$$;
