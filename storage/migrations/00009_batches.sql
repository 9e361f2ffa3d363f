-- +goose Up
-- Batches: what a crew sends together, as one thing that is open, completed, failed or cancelled (docs/batches.md).
-- The previous release runs beside this: it writes only the label uploads.batch, which the reconciler files later
-- (docs/adr/0011).
set local role tramo_owner;

create table batches (
  tenant_id    uuid not null references tenants (id),
  id           uuid not null,
  project      text not null,
  name         text not null check (name <> ''),
  client_id    text check (client_id <> ''),            -- the client's own name for it
  user_id      text not null,
  manifest     boolean not null default false,          -- its client said what belongs to it
  created_at   timestamptz not null default now(),
  updated_at   timestamptz not null default now(),      -- when it was last added to, renamed, ended or opened again
  completed_at timestamptz,                             -- since when every upload in it has ended; null while it is open
  failed       boolean not null default false,          -- one of them failed or expired
  cancelled_at timestamptz,
  primary key (tenant_id, id),
  unique (tenant_id, project, id),                      -- an upload's batch is of its own project
  check (not failed or completed_at is not null),
  check (cancelled_at is null or completed_at is null)
) with (fillfactor = 70);
create unique index batches_client_id on batches (tenant_id, project, client_id) where client_id is not null;
-- Whatever is open should have something unfinished in it; the reconciler looks.
create index batches_open on batches (tenant_id, id) where completed_at is null and cancelled_at is null;

alter table batches enable row level security, force row level security;
create policy tenant on batches
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
-- As for uploads: a batch that is not completed does not exist for who sees only what is.
create policy scope on batches as restrictive
  using ((coalesce(current_setting('app.projects', true), '') = ''
          or project = any (string_to_array(current_setting('app.projects', true), ',')))
         and (coalesce(current_setting('app.completed_only', true), '') = '' or (completed_at is not null and not failed)))
  with check (coalesce(current_setting('app.projects', true), '') = ''
              or project = any (string_to_array(current_setting('app.projects', true), ',')));
grant select, insert on batches to tramo_api;
grant update (name, manifest, updated_at, completed_at, failed, cancelled_at) on batches to tramo_api;
grant select, insert, update, delete on batches to tramo_worker;

-- Partial uploads are in no batch: the final one is.
alter table uploads
  add column batch_id uuid,
  add column replaced_by uuid,  -- of one that has ended badly: the upload in the same batch that its client sent instead
  add constraint uploads_batch_fkey foreign key (tenant_id, project, batch_id) references batches (tenant_id, project, id),
  add check (batch_id is null or kind <> 'partial');
create index uploads_batch on uploads (tenant_id, batch_id, id) where batch_id is not null;
create index uploads_batch_unfinished on uploads (tenant_id, batch_id)
  where batch_id is not null and status in ('pending', 'uploading', 'uploaded', 'processing');
create index uploads_batch_client on uploads (tenant_id, batch_id, client_id)
  where batch_id is not null and client_id is not null;
create index uploads_unfiled on uploads (tenant_id, project, batch)
  where batch is not null and batch_id is null and kind <> 'partial';

-- Answers to requests that must not act twice (draft-ietf-httpapi-idempotency-key-header). A row is written in the
-- transaction that acts, so that there is one exactly if it did.
create table idempotency_keys (
  tenant_id  uuid not null references tenants (id),
  user_id    text not null,
  key        text not null,
  request    bytea not null check (octet_length(request) = 32),  -- SHA-256 of what was asked for
  answer     bytea not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, user_id, key)
);
create index idempotency_keys_age on idempotency_keys (created_at);
alter table idempotency_keys enable row level security, force row level security;
create policy tenant on idempotency_keys
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select, insert on idempotency_keys to tramo_api;
grant select, insert, update, delete on idempotency_keys to tramo_worker;

reset role;
