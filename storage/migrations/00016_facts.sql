-- +goose Up
-- What photos say of themselves, as they say it, beside the typed columns (docs/facts.md).
set local role tramo_owner;

-- XMP tells times with their zones.
alter table uploads drop constraint uploads_taken_zone_check,
  add check (taken_zone in ('offset', 'xmp', 'gps'));

create table tags (
  tenant_id uuid not null,
  upload_id uuid not null,
  -- By group and name. Workers write 16 KiB at most; jsonb as text has blanks, and numbers without exponents.
  tags      jsonb not null check (jsonb_typeof(tags) = 'object' and octet_length(tags::text) <= 65536),
  truncated boolean not null,  -- there were more
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);
alter table tags enable row level security, force row level security;
create policy tenant on tags
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select on tags to tramo_api;
grant select, insert, update, delete on tags to tramo_worker;

reset role;
