-- `drx-consumer prune` deletes the history of what has ended. A question that matches no prescription stays until it is
-- answered, and its answer as long as the question: both are found by their request.

create index event_unmatched on {schema}.event using hash ((body ->> 'request_id'))
  where prescription_id is null and event_type in ('renewal.requested', 'change.requested');
comment on column {schema}.prescription.events is 'Its events, those that were pruned from event included';

do $$
begin
  if exists (select from pg_roles where rolname = 'drx_operator') then
    grant select on {schema}.prescription to drx_operator;
    grant select, delete on {schema}.event to drx_operator;
  end if;
end
$$;
