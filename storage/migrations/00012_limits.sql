-- +goose Up
-- What a tenant may do besides its quota; null for what the installation allows.
set local role tramo_owner;

alter table tenants
  add column max_upload_bytes bigint check (max_upload_bytes > 0),  -- of one upload
  add column max_uploads      integer check (max_uploads > 0);      -- that send at the same time, to one server

-- How much of a tenant's waits for workers, which decides when its next upload is worked.
create index uploads_backlog on uploads (tenant_id) where status in ('uploaded', 'processing');

reset role;
