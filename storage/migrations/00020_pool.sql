-- +goose Up
-- Whose jobs a process that heartbeats works, so that those of one that died are soon another's (docs/adr/0024-pool.md). The
-- previous release fills neither column, and names its jobs so that nobody judges them by these.
set local role tramo_owner;

alter table lease_holders
  add column process uuid,                              -- the same in all rows that a process has, one after another
  add column since   timestamptz not null default now(); -- from when on it has been one without a gap

reset role;
