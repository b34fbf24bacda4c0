-- A row takes about two thousand bytes, just above where PostgreSQL begins to compress: each of its ten updates paid for
-- that, a tenth of what an event costs the server, to save a third of the row. Longer ones are compressed as before.
alter table {schema}.prescription set (toast_tuple_target = 4096);
