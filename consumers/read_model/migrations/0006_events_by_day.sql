-- `daily_event` groups by the day of receipt in UTC: a question about some days read the whole history, since the index of
-- receipts is on another expression. This one takes a few pages, and costs an insert next to nothing.

create index event_by_day on {schema}.event using brin (((received_at at time zone 'UTC')::date));
