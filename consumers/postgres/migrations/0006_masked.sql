-- What of a key waits where, for dashboards: to who has the key, which `drx_reader` cannot read from the tables.

create function {schema}.masked_parked(record_key text) returns table (
  grp text, topic text, part int, class text, code text, attempts int, parked_at timestamptz,
  release_requested_at timestamptz, events bigint
) language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select k.grp, k.topic, k.part, k.class, k.code, k.attempts, k.parked_at, k.release_requested_at,
    (select count(*) from {schema}.parked_event e
     where (e.grp, e.topic, e.part, e.key) = (k.grp, k.topic, k.part, k.key))
  from {schema}.parked_key k where k.key = record_key
$$;
comment on function {schema}.masked_parked is 'Where a key is parked, and how many of its events wait';

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant execute on function {schema}.masked_parked to drx_reader;
  end if;
end
$$;
