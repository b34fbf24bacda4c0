-- What tells a process that died from one that ended in order, and a release that kills from one that was interrupted.

alter table {schema}.progress
  add column held boolean not null default false,
  add column deaths int not null default 0;
comment on column {schema}.progress.held is 'Claimed, and not given back: its owner is at work, or died';
comment on column {schema}.progress.deaths is 'Owners since next_offset last moved that did not give it back';

alter table {schema}.parked_key
  add column release_offset bigint,
  add column release_attempts int not null default 0;
comment on column {schema}.parked_key.release_offset is 'First record of the key when its release last began';
comment on column {schema}.parked_key.release_attempts is
  'How often its release began there, and neither ended nor was interrupted in order';
