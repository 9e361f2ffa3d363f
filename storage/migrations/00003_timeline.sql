-- +goose Up
-- What every entry may have, in columns of its own. The previous release leaves them null.
set local role tramo_owner;

alter table timeline
  add column at_offset   bigint,   -- the upload's offset then, bytes
  add column duration_ms integer,  -- how long it took, until "at"
  add column replica     text,     -- the process that it happened in
  add column trace_id    text;     -- W3C Trace Context, trace-id: of the request, or of the job that it led to

reset role;
