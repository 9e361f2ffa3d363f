-- +goose Up
-- Films have facts, too: how long they are, and a time from their header. No row is looked at: the new check allows more than
-- the old one did.
alter table uploads
  add column duration_s double precision check (duration_s > 0),
  drop constraint uploads_taken_zone_check,
  add constraint uploads_taken_zone_check check (taken_zone in ('offset', 'xmp', 'gps', 'header')) not valid;
