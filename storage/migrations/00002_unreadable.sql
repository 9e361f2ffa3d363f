-- +goose Up
-- What cannot be decoded is kept, and says so. The previous release never writes the new reason, and reads it as any other.
set local role tramo_owner;

alter table uploads drop constraint uploads_no_thumbnail_check;
alter table uploads add constraint uploads_no_thumbnail_check check (no_thumbnail in
  ('too_large', 'memory', 'cpu', 'time', 'output', 'unreadable', 'unsupported', 'protected', 'tool_missing')) not valid;
alter table uploads validate constraint uploads_no_thumbnail_check;

reset role;
