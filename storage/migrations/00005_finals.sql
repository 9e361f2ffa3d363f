-- +goose Up
-- A partial upload is used by one final upload at most (docs/adr/0009).
set local role tramo_owner;

alter table uploads
  add column final_id uuid,                                      -- of a partial: the final upload that it becomes a part of
  add check (final_id is null or kind = 'partial'),
  add check (status <> 'joined' or final_id is not null);

reset role;
