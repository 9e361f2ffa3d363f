-- +goose Up
-- An upload that has ended stays charged to its tenant's quota until S3 has nothing more of it. Servers of the previous
-- release refund when they end an upload, and leave the column false: the reconciler removes what is left of such an upload,
-- and refunds nothing.
set local role tramo_owner;

alter table uploads add column remains boolean not null default false; -- it has ended, and S3 may still have bytes of it
create index uploads_remains on uploads (tenant_id, id) where remains;

reset role;
