-- +goose Up
-- The schema of the first release. Migrations are forward-only: a released file never changes and has no down. A later change
-- is a new file, and servers and workers of the previous release must still work after it: a column that they do not fill is
-- nullable or has a default, and what they read is dropped one release later.
--
-- Roles first: they belong to the cluster, so two databases of one cluster may race to create them. tramo_owner owns every
-- table and cannot log in. tramo_api is the server: row-level security binds it. tramo_worker is the worker pool and the
-- operator's commands: it sees every tenant. Neither may become another.
-- +goose StatementBegin
do $$
declare
  wanted text[][] := array[
    ['tramo_owner',  'nologin nobypassrls'],
    ['tramo_api',    'login nobypassrls'],
    ['tramo_worker', 'login bypassrls']];
begin
  for i in 1 .. array_length(wanted, 1) loop
    if not exists (select from pg_roles where rolname = wanted[i][1]) then
      begin
        execute format('create role %I %s', wanted[i][1], wanted[i][2]);
      exception when duplicate_object or unique_violation then null;
      end;
    end if;
  end loop;
  execute format('grant create, usage on schema %I to tramo_owner', current_schema());
  execute format('grant usage on schema %I to tramo_api, tramo_worker', current_schema());
  -- A superuser can become anyone. Since Postgres 16, who creates a role is its member without the right to
  -- become it, so the grant is made even if it looks as if it were there.
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant tramo_owner to %I', current_user);
  end if;
end $$;
-- +goose StatementEnd

set local role tramo_owner;

-- Tenants and their limits; a null limit is the installation's.
create table tenants (
  id               uuid primary key,
  name             text not null unique check (name <> ''),
  quota_bytes      bigint not null check (quota_bytes >= 0),
  charged_bytes    bigint not null default 0 check (charged_bytes >= 0),
  created_at       timestamptz not null default now(),
  max_upload_bytes bigint check (max_upload_bytes > 0),  -- of one upload
  max_uploads      integer check (max_uploads > 0),      -- that send at the same time, to one server
  erasing_at       timestamptz,  -- since when it takes no uploads, because all its data is being removed
  erased_at        timestamptz,  -- since when only this row, its audit log and its erasures are left
  check (erased_at is null or erasing_at is not null)
);

-- Batches: what a crew sends together, as one thing that is open, completed, failed or cancelled.
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
-- An open batch should have an unfinished upload; the reconciler looks for those that have none.
create index batches_open on batches (tenant_id, id) where completed_at is null and cancelled_at is null;

create table uploads (
  tenant_id       uuid not null references tenants (id),
  id              uuid not null,
  user_id         text not null,
  client_id       text,
  project         text not null,
  batch           text,                    -- as its client called the batch when it began the upload
  batch_id        uuid,
  replaced_by     uuid,                    -- of a failed or expired upload: the one in the same batch that its client sent instead
  filename        text,
  declared_type   text,
  declared_sha256 bytea check (octet_length(declared_sha256) = 32),
  metadata        jsonb not null,          -- the client's own, returned verbatim by HEAD (tus 1.0.0, Creation)
  kind            text not null default 'single' check (kind in ('single', 'partial', 'final')),
  partials        uuid[] not null default '{}', -- of a final upload, in order (tus 1.0.0, Concatenation)
  final_id        uuid,                    -- of a partial upload: the final one that it becomes a part of, one at most
  size            bigint check (size > 0), -- null while the client has not said (tus 1.0.0, Creation With Defer Length)
  charged_bytes   bigint not null check (charged_bytes >= 0),
  status          text not null default 'pending' check (status in
    ('pending', 'uploading', 'uploaded', 'processing', 'completed', 'failed', 'expired', 'cancelled', 'concatenated')),
  failure_reason  text,
  failure_detail  text,
  sha256          bytea check (octet_length(sha256) = 32),
  object_key      text,
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  uploaded_at     timestamptz,
  completed_at    timestamptz,
  deleted_at      timestamptz,             -- when somebody deleted it
  purge_at        timestamptz,             -- from when on its bytes and rows are removed; -infinity: at once, and past restoring

  -- Results of processing.
  detected_type   text,
  type_mismatch   boolean not null default false, -- the content is of another kind than its client declared
  partial         boolean not null default false, -- its thumbnails show a part of it: the rest is missing or damaged
  placeholder     text check (octet_length(placeholder) <= 64), -- ThumbHash, base64: what a list shows while thumbnails load
  no_thumbnail    text check (no_thumbnail in     -- why there is none of a type that can have one
    ('too_large', 'memory', 'cpu', 'time', 'output', 'unsupported', 'protected', 'tool_missing')),

  -- Facts from the metadata of the file; typed, so that searches can use indexes under RLS.
  taken_at        timestamptz,             -- null when the camera named no zone
  taken_local     timestamp,               -- the camera's wall clock
  taken_zone      text check (taken_zone in ('offset', 'xmp', 'gps')),
  latitude        double precision check (latitude between -90 and 90),
  longitude       double precision check (longitude between -180 and 180),
  altitude_m      double precision,
  direction_deg   double precision,
  camera_make     text,
  camera_model    text,
  lens            text,
  software        text,
  orientation     smallint check (orientation between 1 and 8),
  width_px        integer check (width_px > 0),
  height_px       integer check (height_px > 0),
  pages           integer check (pages > 0),
  title           text,

  primary key (tenant_id, id),
  constraint uploads_batch_fkey foreign key (tenant_id, project, batch_id) references batches (tenant_id, project, id),
  check ((status = 'failed') = (failure_reason is not null)),
  check ((kind = 'final') = (partials <> '{}')),
  check (final_id is null or kind = 'partial'),
  check (status <> 'concatenated' or final_id is not null),
  check (batch_id is null or kind <> 'partial'),   -- partial uploads are in no batch: the final one is
  check ((deleted_at is null) = (purge_at is null))
);
-- A client that lost the answer to its creation finds its upload by its own id. A failed, expired, cancelled or deleted
-- upload does not occupy the id.
create unique index uploads_client_id on uploads (tenant_id, user_id, client_id)
  where client_id is not null and status not in ('failed', 'expired', 'cancelled', 'concatenated') and deleted_at is null;
create index uploads_unfinished on uploads (status) where status in ('pending', 'uploading', 'uploaded', 'processing');
-- The number of a tenant's uploads that wait for workers decides the priority of the next one.
create index uploads_backlog on uploads (tenant_id) where status in ('uploaded', 'processing');
-- Every change of status moves updated_at. The offset moves far more often and is in contents, of which nothing is indexed
-- but the key; uploads_receiving leads to the few whose offset can have moved.
create index uploads_updated on uploads (tenant_id, updated_at);
create index uploads_receiving on uploads (tenant_id, id) where status in ('pending', 'uploading');
create index uploads_batch on uploads (tenant_id, batch_id, id) where batch_id is not null;
create index uploads_batch_unfinished on uploads (tenant_id, batch_id)
  where batch_id is not null and status in ('pending', 'uploading', 'uploaded', 'processing');
create index uploads_batch_client on uploads (tenant_id, batch_id, client_id)
  where batch_id is not null and client_id is not null;
-- The reconciler reads uploads in the order in which S3 lists their keys, page by page beside it. A slash ends
-- each project there, and sorts behind - and . but before all else that a project's name may have.
create index uploads_inventory on uploads (tenant_id, ((project || '/') collate "C"), id);
create index uploads_deleted on uploads (purge_at) where deleted_at is not null;
-- Row-level security lets an index answer only for operators that are leakproof; the comparisons of these columns' types are.
create index uploads_place on uploads (tenant_id, latitude, longitude) where latitude is not null;
create index uploads_taken_at on uploads (tenant_id, taken_at) where taken_at is not null;
create index uploads_taken_local on uploads (tenant_id, taken_local) where taken_local is not null;

-- Where an upload's bytes are. Kept apart from uploads because every part and every tail rewrites it.
create table contents (
  tenant_id    uuid not null,
  upload_id    uuid not null,
  received     bigint not null default 0 check (received >= 0),  -- the offset: durable bytes, without holes
  hash_state   bytea,                                            -- SHA-256 of those bytes, marshalled
  object_key   text,                                             -- where the whole object is, or is being put together
  multipart_id text,                                             -- null until the first whole part
  next_part    integer not null default 1,                       -- never handed out twice
  tail_size    bigint not null default 0 check (tail_size >= 0),
  stored       boolean not null default false,                   -- the object exists, whole, under uploads.object_key
  touched_at   timestamptz not null default now(),               -- when the offset moved last; expiry counts from it
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade,
  check (object_key is not null or (multipart_id is null and not stored))
) with (fillfactor = 70);

create table parts (
  tenant_id uuid not null,
  upload_id uuid not null,
  number    integer not null check (number between 1 and 10000),
  size      bigint not null check (size > 0),
  etag      text not null,
  checksum  text not null default '',                            -- CRC32C, Base64, as S3 checked it
  primary key (tenant_id, upload_id, number),
  foreign key (tenant_id, upload_id) references contents (tenant_id, upload_id) on delete cascade
);

-- Bytes that no part holds yet. They are kept here, where appending costs no S3 request and rewrites nothing.
create table tails (
  tenant_id uuid not null,
  upload_id uuid not null,
  start     bigint not null check (start >= 0),                  -- offset of the first byte
  data      bytea not null check (octet_length(data) > 0),
  primary key (tenant_id, upload_id, start),
  foreign key (tenant_id, upload_id) references contents (tenant_id, upload_id) on delete cascade
);
alter table tails alter column data set storage external;        -- photos do not compress

create table thumbnails (
  tenant_id    uuid not null,
  upload_id    uuid not null,
  size         integer not null check (size > 0),   -- pixels of the box that it was drawn for
  width_px     integer not null check (width_px > 0),
  height_px    integer not null check (height_px > 0),
  bytes        bigint not null check (bytes > 0),
  content_type text not null,
  object_key   text not null,
  primary key (tenant_id, upload_id, size),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);

-- The tags of files as they are, beside the typed columns of uploads.
create table tags (
  tenant_id uuid not null,
  upload_id uuid not null,
  -- By group and name. Workers write 16 KiB at most; jsonb as text has blanks, and numbers without exponents.
  tags      jsonb not null check (jsonb_typeof(tags) = 'object' and octet_length(tags::text) <= 65536),
  truncated boolean not null,  -- some were left out
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);

-- Results of the steps of an attempt, so that the next attempt repeats only what failed. A row is deleted when its upload ends.
create table step_results (
  tenant_id uuid not null,
  upload_id uuid not null,
  done      text[] not null,  -- the steps that need not run again
  results   jsonb not null,
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);

-- The latest virus scan of each upload, with the version of the signatures, and the release from quarantine.
create table scans (
  tenant_id           uuid not null,
  upload_id           uuid not null,
  verdict             text not null check (verdict in ('clean', 'infected', 'unscannable', 'oversize_passed')),
  signature           text,                         -- the name of the virus
  engine              text,                         -- such as ClamAV 1.4.3
  signatures          bigint,                       -- the version of its daily database
  signed_at           timestamptz,                  -- when that was made
  scanned_at          timestamptz not null default now(),
  released_by         text,                         -- who last released it from quarantine
  released_at         timestamptz,
  release_reason      text,
  released_signatures text[] not null default '{}', -- signatures that were found and released
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade,
  check (verdict not in ('infected', 'unscannable') or signature is not null),
  check ((released_by is null) = (released_at is null) and (released_by is null) = (release_reason is null))
);
create index scans_condemned on scans (tenant_id, upload_id) where verdict in ('infected', 'unscannable');

-- Why processing of an upload was given up, for the operator of the installation. Servers may not read the jobs themselves,
-- which are of all tenants.
create table dead_letters (
  tenant_id    uuid not null,
  id           uuid not null,                 -- UUIDv7: the order is that of failures
  upload_id    uuid not null,
  job_id       bigint not null,
  kind         text not null,                 -- of the job
  step         text not null,                 -- at which the last attempt failed
  error        text not null check (octet_length(error) <= 8000), -- internal: no tenant reads it
  attempts     integer not null,
  trace_id     text,
  failed_at    timestamptz not null default clock_timestamp(),
  retried_at   timestamptz,
  retried_by   text,
  discarded_at timestamptz,
  discarded_by text,
  primary key (tenant_id, id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade,
  check ((retried_at is null) = (retried_by is null)),
  check ((discarded_at is null) = (discarded_by is null))
);
-- Each retry that fails leaves a letter; the last of an upload's is the only one that can be retried.
create unique index dead_letters_last on dead_letters (tenant_id, upload_id) where retried_at is null;
create index dead_letters_of_upload on dead_letters (tenant_id, upload_id);
create index dead_letters_open on dead_letters (id) where retried_at is null and discarded_at is null;

-- Events of an upload, in order. Each is written in the transaction that makes it true.
create table timeline (
  tenant_id   uuid not null,
  upload_id   uuid not null,
  seq         bigint generated always as identity,
  at          timestamptz not null default clock_timestamp(),
  event       text not null,
  at_offset   bigint,                         -- the upload's offset then, bytes
  duration_ms integer,                        -- how long it took, until "at"
  replica     text,                           -- the process that it happened in
  trace_id    text,                           -- W3C Trace Context, trace-id: of the request, or of the job that it led to
  detail      jsonb not null default '{}',
  primary key (tenant_id, upload_id, seq),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);

-- Leases. A process lives in lease_holders while it heartbeats; the leases that it holds are in upload_leases.
-- lease_holders is the one table without a tenant: its rows are processes.
create table lease_holders (
  id         uuid primary key,
  replica    text not null,
  expires_at timestamptz not null,
  process    uuid,                                  -- the same in all rows that a process has, one after another
  since      timestamptz not null default now()     -- from when on it has been one without a gap
);
create sequence fences;
create table upload_leases (
  tenant_id uuid not null,
  upload_id uuid not null,
  holder_id uuid not null references lease_holders (id) on delete cascade,
  fence     bigint not null,
  waiter    uuid,                                   -- the last process that asked for it; while there is one, the deletion of this row is notified to all
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);
create index upload_leases_holder on upload_leases (holder_id);

-- Announcements for webhooks and listeners, each written in the transaction that makes it true.
create table announcements (
  tenant_id     uuid not null references tenants (id),
  id            uuid not null default gen_random_uuid(),
  type          text not null,
  upload_id     uuid,
  batch_id      uuid,
  detail        jsonb not null default '{}',
  trace_id      text,
  created_at    timestamptz not null default now(),
  dispatched_at timestamptz,                        -- when deliveries of it were made
  primary key (tenant_id, id)
);
create index announcements_created on announcements (tenant_id, created_at);
create index announcements_waiting on announcements (created_at) where dispatched_at is null;
create index announcements_old on announcements (created_at);

create table webhook_endpoints (
  tenant_id       uuid not null references tenants (id),
  id              uuid not null,
  url             text not null,
  types           text[] not null default '{}',  -- of announcements that it wants; empty for all
  description     text,
  user_id         text not null,                 -- who created it
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  failing_since   timestamptz,                   -- the first of the attempts that failed since one succeeded
  held_until      timestamptz,                   -- it asked for no more before (RFC 9110, section 10.2.3)
  disabled_at     timestamptz,
  disabled_reason text check (disabled_reason in ('request', 'gone', 'failing')),
  primary key (tenant_id, id),
  check ((disabled_at is null) = (disabled_reason is null))
);

-- A table of their own, because the server writes secrets and may not read them.
create table webhook_secrets (
  tenant_id   uuid not null,
  endpoint_id uuid not null,
  id          uuid not null,
  sealed      bytea not null,                    -- AES-256-GCM under TRAMO_WEBHOOK_KEY
  valid_until timestamptz,                       -- null for the current one
  primary key (tenant_id, endpoint_id, id),
  foreign key (tenant_id, endpoint_id) references webhook_endpoints (tenant_id, id) on delete cascade
);
create unique index webhook_secrets_current on webhook_secrets (tenant_id, endpoint_id) where valid_until is null;

create table webhook_deliveries (
  tenant_id       uuid not null,
  id              uuid not null,
  endpoint_id     uuid not null,
  announcement_id uuid not null,
  state           text not null default 'pending' check (state in ('pending', 'delivered', 'dead')),
  attempts        integer not null default 0,
  job_id          bigint,                        -- of the attempt that is under way or about to be; null between attempts
  claimed_at      timestamptz,                   -- when that job was enqueued
  next_attempt_at timestamptz default now(),     -- null once it has ended
  last_attempt_at timestamptz,
  last_status     integer,                       -- of HTTP; null if there was no answer
  last_error      text,                          -- a word; null once it is delivered
  last_ms         integer,                       -- how long the last attempt took
  created_at      timestamptz not null default now(),
  ended_at        timestamptz,
  primary key (tenant_id, id),
  unique (tenant_id, announcement_id, endpoint_id),
  foreign key (tenant_id, endpoint_id) references webhook_endpoints (tenant_id, id) on delete cascade,
  foreign key (tenant_id, announcement_id) references announcements (tenant_id, id) on delete cascade,
  check ((state = 'pending') = (ended_at is null)),
  check ((state = 'pending') = (next_attempt_at is not null))
);
create index webhook_deliveries_due on webhook_deliveries (tenant_id, endpoint_id, next_attempt_at)
  where state = 'pending' and job_id is null;
create index webhook_deliveries_under_way on webhook_deliveries (tenant_id, endpoint_id)
  where state = 'pending' and job_id is not null;
create index webhook_deliveries_listed on webhook_deliveries (tenant_id, endpoint_id, id);

-- Actions of users, with address and outcome. No role of an application may change or delete an entry.
create table audit (
  tenant_id   uuid not null references tenants (id),
  seq         bigint generated always as identity,
  at          timestamptz not null default clock_timestamp(),
  actor       text not null,                       -- the token's subject; "worker" and the like for our own programs
  role        text not null,
  home_tenant uuid,                                -- of an admin of another tenant
  action      text not null,
  subject     text,                                -- an id or a user
  outcome     text not null,                       -- done, or the problem that prevented it
  address     text,                                -- the client's
  request_id  text,
  trace_id    text,
  detail      jsonb not null default '{}',
  primary key (tenant_id, seq)
);
create index audit_actor on audit (tenant_id, actor, seq);
create index audit_subject on audit (tenant_id, subject, seq) where subject is not null;
-- The inventory asks for each object that no row owns whether its upload was purged.
create index audit_purged on audit (tenant_id, subject) where action = 'upload.purge';

-- Requests for permanent removal. A row stays as evidence.
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
-- A tenant is erased once, and one request for it is open at a time.
create unique index erasures_of_tenant on erasures (tenant_id) where kind = 'tenant' and state <> 'cancelled';
create index erasures_running on erasures (tenant_id, id) where state = 'running';

-- Answers to requests with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header). A row is written in the transaction
-- of the request, so it exists exactly if the request had its effect.
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

-- Tickets stand for a token where a browser can send no header.
create table event_tickets (
  tenant_id        uuid not null references tenants (id),
  hash             bytea not null check (octet_length(hash) = 32),   -- SHA-256 of the ticket, which is kept nowhere
  expires_at       timestamptz not null,
  user_id          text not null,
  role             text not null,
  projects         text[] check (projects <> '{}'),                  -- null for all
  home_tenant      uuid,                                             -- of an admin of another tenant
  token_expires_at timestamptz not null,                             -- of the token that the ticket was got with
  primary key (tenant_id, hash)
);

-- Row-level security, the same for every table that has rows of tenants.
-- +goose StatementBegin
do $$
declare
  t record;
begin
  for t in
    select c.relname as name, case c.relname when 'tenants' then 'id' else 'tenant_id' end as col
    from pg_class c where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
      and (c.relname = 'tenants' or exists (
        select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped))
  loop
    execute format('alter table %I enable row level security, force row level security', t.name);
    -- After a SET LOCAL has ended the setting is '', not NULL, and ''::uuid is an error.
    execute format($p$create policy tenant on %I
      using (%2$I = nullif(current_setting('app.tenant_id', true), '')::uuid)
      with check (%2$I = nullif(current_setting('app.tenant_id', true), '')::uuid)$p$, t.name, t.col);
  end loop;
end $$;
-- +goose StatementEnd

-- Inside a tenant, a token may name the only projects that its user sees, and an investor sees what is completed and
-- nothing else. Both narrow what a transaction sees of uploads and batches, and through them of everything.
create policy scope on uploads as restrictive
  using ((coalesce(current_setting('app.projects', true), '') = ''
          or project = any (string_to_array(current_setting('app.projects', true), ',')))
         and (coalesce(current_setting('app.completed_only', true), '') = '' or status = 'completed'))
  with check (coalesce(current_setting('app.projects', true), '') = ''
              or project = any (string_to_array(current_setting('app.projects', true), ',')));
create policy scope on batches as restrictive
  using ((coalesce(current_setting('app.projects', true), '') = ''
          or project = any (string_to_array(current_setting('app.projects', true), ',')))
         and (coalesce(current_setting('app.completed_only', true), '') = '' or (completed_at is not null and not failed)))
  with check (coalesce(current_setting('app.projects', true), '') = ''
              or project = any (string_to_array(current_setting('app.projects', true), ',')));
-- A letter is visible if its upload is: in the projects of the token, and not deleted.
create policy scope on dead_letters as restrictive
  using (exists (select from uploads u where u.tenant_id = dead_letters.tenant_id and u.id = dead_letters.upload_id));
-- The one place that hides deleted uploads from servers. Workers see them: they remove them.
create policy undeleted on uploads as restrictive
  using (deleted_at is null or coalesce(current_setting('app.deleted', true), '') <> '')
  with check (true);
-- The audit log is of all projects of a tenant. A token that is limited to some projects, and an investor's, may append to it
-- and not read it.
create policy tenant_wide on audit as restrictive for select
  using (coalesce(current_setting('app.projects', true), '') = '' and coalesce(current_setting('app.completed_only', true), '') = '');

grant select on tenants to tramo_api;
grant update (charged_bytes, erasing_at) on tenants to tramo_api;
grant select, insert, update on uploads to tramo_api;
grant select, insert on batches to tramo_api;
grant update (name, manifest, updated_at, completed_at, failed, cancelled_at) on batches to tramo_api;
grant select, insert, update, delete on contents, parts to tramo_api;
grant select, insert, delete on tails to tramo_api, tramo_worker;
grant select on thumbnails, tags, scans to tramo_api;
-- Servers release uploads from quarantine; only workers write verdicts.
grant update (released_by, released_at, release_reason, released_signatures) on scans to tramo_api;
grant select, update (retried_at, retried_by, discarded_at, discarded_by) on dead_letters to tramo_api;
grant select, insert on timeline, announcements, idempotency_keys to tramo_api;
grant select, insert on audit to tramo_api, tramo_worker;
grant select, insert, update, delete on lease_holders, upload_leases to tramo_api, tramo_worker;
grant usage on sequence fences to tramo_api, tramo_worker;
grant select, insert, delete on webhook_endpoints to tramo_api;
grant update (url, types, description, updated_at, failing_since, held_until, disabled_at, disabled_reason)
  on webhook_endpoints to tramo_api;
grant insert, select (tenant_id, endpoint_id, id, valid_until), update (valid_until) on webhook_secrets to tramo_api;
grant select, insert on webhook_deliveries to tramo_api;
grant update (state, attempts, job_id, claimed_at, next_attempt_at, ended_at, last_error) on webhook_deliveries to tramo_api;
-- The requester and the subject of an erasure cannot be changed.
grant select, insert on erasures to tramo_api;
grant update (state, approved_by, approved_at, cancelled_by, ended_at) on erasures to tramo_api;
grant select, update on erasures to tramo_worker;
grant select, insert, delete on event_tickets to tramo_api;
grant select, update, delete on event_tickets to tramo_worker;  -- to erase a user, or a tenant
grant select, insert, update, delete on tenants, uploads, batches, contents, parts, thumbnails, tags, step_results, scans,
  dead_letters, timeline, announcements, webhook_endpoints, webhook_secrets, webhook_deliveries, idempotency_keys to tramo_worker;

reset role;
