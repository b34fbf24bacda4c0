-- `drx-consumer prune` looks for what was settled long ago: a few pages instead of the whole inbox.

create index inbox_by_time on {schema}.inbox using brin (settled_at);
