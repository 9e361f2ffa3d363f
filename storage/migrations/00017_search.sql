-- +goose Up
-- Uploads are looked for by where and when they were taken (docs/search.md). Row-level security lets an index answer only
-- for operators that are leakproof; the comparisons of these columns' types are (docs/adr/0025-search-on-b-trees.md).
set local role tramo_owner;

create index uploads_place on uploads (tenant_id, latitude, longitude) where latitude is not null;
create index uploads_taken_at on uploads (tenant_id, taken_at) where taken_at is not null;
create index uploads_taken_local on uploads (tenant_id, taken_local) where taken_local is not null;

reset role;
