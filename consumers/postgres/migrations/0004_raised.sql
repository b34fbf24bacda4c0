-- What a handler raised, and where, so that its author finds the bug without the log of that time.

alter table {schema}.parked_event add column raised text;
comment on column {schema}.parked_event.raised is
  'Type of the exception, and module and line that it comes from; null: it was not raised by a handler';

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_reader') then
    grant select (raised) on {schema}.parked_event to drx_reader;
  end if;
end
$$;
