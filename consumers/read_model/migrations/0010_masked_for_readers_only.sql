-- PostgreSQL lets everybody execute a new function.

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_phi_reader') then
    grant execute on function {schema}.masked_status, {schema}.masked_history, {schema}.masked_waits to drx_phi_reader;
  end if;
end
$$;
revoke execute on function {schema}.masked_status, {schema}.masked_history, {schema}.masked_waits from public;
