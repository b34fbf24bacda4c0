-- Group roles, to be granted to the users that processes and people log in as. Roles belong to the whole server: they
-- may be there already, and the user who migrates need not be allowed to make them.

do $$
declare
  wanted text;
begin
  foreach wanted in array array['drx_consumer', 'drx_operator', 'drx_reader'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception
        when insufficient_privilege then
          raise notice 'role % is not there and may not be made: nothing is granted to it', wanted;
        when duplicate_object or unique_violation then
          null; -- another database's migration was faster
      end;
    end if;
  end loop;

  -- A process that consumes: settles, parks, releases. It forgets nothing and does not touch the audit.
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on {schema}.schema_migration to drx_consumer;
    grant select, insert, update on {schema}.progress, {schema}.park_breaker, {schema}.job to drx_consumer;
    grant select, insert on {schema}.inbox to drx_consumer;
    grant select, insert, delete on {schema}.settled to drx_consumer;
    grant select, insert, update, delete on {schema}.parked_key, {schema}.parked_event to drx_consumer;
    -- Whether the group was forgotten since its tables were made.
    grant select (number, at, grp, verb) on {schema}.audit to drx_consumer;
  end if;

  -- A person at the command line: decides on parked keys, starts and forgets groups, and cannot undo the trace of it.
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant usage on schema {schema} to drx_operator;
    grant select on {schema}.schema_migration to drx_operator;
    grant select, insert, update, delete on {schema}.progress to drx_operator;
    grant select, update, delete on {schema}.park_breaker to drx_operator;
    grant select, delete on {schema}.job to drx_operator;
    grant select, insert, delete on {schema}.inbox, {schema}.settled to drx_operator;
    grant select, delete on {schema}.parked_key, {schema}.parked_event to drx_operator;
    grant update (release_requested_at, release_requested_by) on {schema}.parked_key to drx_operator;
    grant insert (grp, topic, part, key, class, code, attempts) on {schema}.parked_key to drx_operator;
    grant select, insert on {schema}.audit to drx_operator;
  end if;

  -- Dashboards: everything but what is in a record, and its key.
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant usage on schema {schema} to drx_reader;
    grant select on {schema}.schema_migration, {schema}.progress, {schema}.inbox, {schema}.settled to drx_reader;
    grant select on {schema}.park_breaker, {schema}.job to drx_reader;
    grant select (grp, topic, part, class, code, attempts, parked_at, release_requested_at, release_requested_by)
      on {schema}.parked_key to drx_reader;
    grant select (grp, topic, part, "offset", timestamp_ms, source, event_id, event_type, body_sha256, class, code,
      attempts, parked_at) on {schema}.parked_event to drx_reader;
    grant select (number, at, actor, grp, verb, topic, part, "offset", source, event_id, body_sha256, code,
      inbox_written, reason) on {schema}.audit to drx_reader;
  end if;
end
$$;
