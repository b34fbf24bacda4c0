-- Group roles, to be granted to the users that processes and people log in as. Roles belong to the whole server: they
-- may be there already, and the user who migrates need not be allowed to make them.

do $$
declare
  wanted text;
begin
  foreach wanted in array array['drx_consumer', 'drx_reader', 'drx_phi_reader'] loop
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

  -- The process that applies events: changes no table and deletes nothing, and history stands as it was written.
  if exists (select from pg_roles where rolname = 'drx_consumer') then
    grant usage on schema {schema} to drx_consumer;
    grant select on all tables in schema {schema} to drx_consumer;
    grant insert, update on {schema}.prescription to drx_consumer;
    grant insert on {schema}.event to drx_consumer;
  end if;

  -- Dashboards and alerts: figures that name nobody.
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant usage on schema {schema} to drx_reader;
    grant select on {schema}.schema_migration, {schema}.timer, {schema}.overdue_count, {schema}.source_silence,
      {schema}.status_count, {schema}.daily_event, {schema}.daily_fill, {schema}.daily_transmission to drx_reader;
  end if;

  -- Teams, the console, BI: all of it, health information included.
  if exists (select from pg_roles where rolname = 'drx_phi_reader') then
    grant usage on schema {schema} to drx_phi_reader;
    grant select on all tables in schema {schema} to drx_phi_reader;
  end if;
end
$$;
