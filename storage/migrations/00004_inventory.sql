-- +goose Up
-- The reconciler reads uploads in the order in which S3 lists their keys, page by page beside it. A slash ends
-- each project there, and sorts behind - and . but before all else that a project's name may have.
set local role tramo_owner;

create index uploads_inventory on uploads (tenant_id, ((project || '/') collate "C"), id);

reset role;
