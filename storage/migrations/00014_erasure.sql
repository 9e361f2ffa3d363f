-- +goose Up
-- What is deleted does not exist for anybody until it is restored, and is removed from then on (docs/erasure.md). A
-- server of the previous release goes on beside this: for it, too, row-level security hides what is deleted.
set local role tramo_owner;

alter table uploads
  add column deleted_at timestamptz,       -- when somebody deleted it
  add column purge_at   timestamptz,       -- from when on its bytes and rows are removed; -infinity: at once, and past restoring
  add check ((deleted_at is null) = (purge_at is null));
create index uploads_deleted on uploads (purge_at) where deleted_at is not null;

-- The one place that hides what is deleted from servers. Workers see it: they remove it.
create policy undeleted on uploads as restrictive
  using (deleted_at is null or coalesce(current_setting('app.deleted', true), '') <> '')
  with check (true);

-- Who deleted a file may send it again under the same client id.
drop index uploads_client_id;
create unique index uploads_client_id on uploads (tenant_id, user_id, client_id)
  where client_id is not null and status not in ('failed', 'expired', 'cancelled', 'joined') and deleted_at is null;

alter table tenants
  add column erasing_at timestamptz,       -- since when it takes no uploads, because all that it has is being removed
  add column erased_at  timestamptz,       -- since when nothing is left but this row, its audit log and its erasures
  add check (erased_at is null or erasing_at is not null);
grant update (erasing_at) on tenants to tramo_api;

-- What somebody asked to be removed for good. A row is evidence that it was, and stays.
create table erasures (
  tenant_id    uuid not null references tenants (id),
  id           uuid not null,
  kind         text not null check (kind in ('upload', 'user', 'tenant')),
  subject      text,                       -- the upload's id, or the user's
  state        text not null check (state in ('waiting', 'running', 'done', 'cancelled')),
  requested_by text not null,
  requested_at timestamptz not null default now(),
  approved_by  text,
  approved_at  timestamptz,
  cancelled_by text,
  ended_at     timestamptz,                -- done or cancelled
  uploads      bigint not null default 0,  -- removed
  objects      bigint not null default 0,  -- removed from S3, multipart uploads among them
  primary key (tenant_id, id),
  check ((kind = 'tenant') = (subject is null)),
  constraint erasures_two_people check (approved_by <> requested_by),
  check (kind = 'tenant' or (state not in ('waiting', 'cancelled') and approved_by is null)),
  check (kind <> 'tenant' or state in ('waiting', 'cancelled') or approved_by is not null),
  check ((approved_by is null) = (approved_at is null)),
  check ((state = 'cancelled') = (cancelled_by is not null)),
  check ((state in ('done', 'cancelled')) = (ended_at is not null))
);
-- A tenant is erased once, and one question after it stands open at a time.
create unique index erasures_of_tenant on erasures (tenant_id) where kind = 'tenant' and state <> 'cancelled';
create index erasures_running on erasures (tenant_id, id) where state = 'running';
alter table erasures enable row level security, force row level security;
create policy tenant on erasures
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
-- Who asked, and for what, stands as it was written.
grant select, insert on erasures to tramo_api;
grant update (state, approved_by, approved_at, cancelled_by, ended_at) on erasures to tramo_api;
grant select, update on erasures to tramo_worker;

-- Whether something that S3 has may go, since its upload was removed, is asked for each that no row knows.
create index audit_purged on audit (tenant_id, subject) where action = 'upload.purge';

reset role;
