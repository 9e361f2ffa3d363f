-- +goose Up
-- Why processing gave an upload up, for whoever operates the installation (docs/dead-letters.md). The jobs themselves are of
-- all tenants, and servers may not read them. A server or a worker of the previous release goes on beside this, and
-- marks and writes none; the reconciler writes what is missing.
set local role tramo_owner;

create table dead_letters (
  tenant_id    uuid not null,
  id           uuid not null,                 -- UUIDv7: the order is that of deaths
  upload_id    uuid not null,
  job_id       bigint,                        -- null if it is not known any more
  kind         text not null,                 -- of the job
  step         text not null,                 -- that the last attempt had come to
  error        text not null check (octet_length(error) <= 8000), -- internal: no tenant is told
  attempts     integer not null,
  trace_id     text,
  died_at      timestamptz not null default clock_timestamp(),
  retried_at   timestamptz,
  retried_by   text,
  discarded_at timestamptz,
  discarded_by text,
  primary key (tenant_id, id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade,
  check ((retried_at is null) = (retried_by is null)),
  check ((discarded_at is null) = (discarded_by is null))
);
-- Each retry that dies leaves a letter; the last of an upload's is the only one that can be retried.
create unique index dead_letters_last on dead_letters (tenant_id, upload_id) where retried_at is null;
create index dead_letters_of_upload on dead_letters (tenant_id, upload_id);
create index dead_letters_open on dead_letters (id) where retried_at is null and discarded_at is null;

alter table dead_letters enable row level security, force row level security;
create policy tenant on dead_letters
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
-- A letter is seen by whom its upload is seen by: not outside of a token's projects, and not once it is deleted.
create policy scope on dead_letters as restrictive
  using (exists (select from uploads u where u.tenant_id = dead_letters.tenant_id and u.id = dead_letters.upload_id));
grant select, update (retried_at, retried_by, discarded_at, discarded_by) on dead_letters to tramo_api;
grant select, insert, update, delete on dead_letters to tramo_worker;

-- The reconciler looks here for uploads without a letter: those that died before there were any, or at the hands of a worker
-- of the previous release.
create index uploads_dead on uploads (tenant_id, id) where status = 'failed' and failure_reason = 'dead_lettered';

reset role;
