-- +goose Up
-- What happened that others asked to be told of, written in the transaction that makes it true.
set local role tramo_owner;

create table announcements (
  tenant_id  uuid not null references tenants (id),
  id         uuid not null default gen_random_uuid(),
  type       text not null,
  upload_id  uuid,
  batch_id   uuid,
  detail     jsonb not null default '{}',
  trace_id   text,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id)
);
alter table announcements enable row level security, force row level security;
create policy tenant on announcements
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select, insert on announcements to tramo_api;
grant select, insert, update, delete on announcements to tramo_worker;

reset role;
