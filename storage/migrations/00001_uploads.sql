-- +goose Up
-- Roles first: they belong to the cluster, so two databases of one cluster may race to create them.
-- tramo_owner owns every table and cannot log in. tramo_api is the server: row-level security binds
-- it. tramo_worker is the worker pool and the operator's commands: it sees every tenant. Neither may
-- become another.
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

create table tenants (
  id            uuid primary key,
  name          text not null unique check (name <> ''),
  quota_bytes   bigint not null check (quota_bytes >= 0),
  charged_bytes bigint not null default 0 check (charged_bytes >= 0),
  created_at    timestamptz not null default now()
);

create table uploads (
  tenant_id       uuid not null references tenants (id),
  id              uuid not null,
  user_id         text not null,
  client_id       text,
  project         text not null,
  batch           text,
  filename        text,
  declared_type   text,
  declared_sha256 bytea check (octet_length(declared_sha256) = 32),
  metadata        jsonb not null,          -- the client's own, returned verbatim by HEAD (tus 1.0.0, Creation)
  size            bigint not null check (size > 0),
  charged_bytes   bigint not null check (charged_bytes >= 0),
  status          text not null default 'pending' check (status in
    ('pending', 'uploading', 'uploaded', 'processing', 'completed', 'failed', 'expired', 'cancelled')),
  failure_reason  text,
  failure_detail  text,
  detected_type   text,
  sha256          bytea check (octet_length(sha256) = 32),
  object_key      text,
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  uploaded_at     timestamptz,
  completed_at    timestamptz,

  -- Facts that the picture tells of itself; typed, so that searches can use indexes under RLS.
  taken_at        timestamptz,             -- null when the camera named no zone
  taken_local     timestamp,               -- the camera's wall clock
  taken_zone      text check (taken_zone in ('offset', 'gps')),
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

  primary key (tenant_id, id),
  check ((status = 'failed') = (failure_reason is not null))
);
-- A client that lost the answer to its creation finds its upload by its own id. One that has ended badly
-- makes room for another try.
create unique index uploads_client_id on uploads (tenant_id, user_id, client_id)
  where client_id is not null and status not in ('failed', 'expired', 'cancelled');
create index uploads_unfinished on uploads (status)
  where status in ('pending', 'uploading', 'uploaded', 'processing');

-- Where an upload's bytes are. Kept apart from uploads because every part and every tail rewrites it.
create table contents (
  tenant_id    uuid not null,
  upload_id    uuid not null,
  received     bigint not null default 0 check (received >= 0),  -- the offset: durable bytes, without holes
  hash_state   bytea,                                            -- SHA-256 of those bytes, marshalled
  object_key   text,                                             -- where the whole object is, or is being put together
  multipart_id text,                                             -- null until the first whole part
  next_part    integer not null default 1,                       -- never handed out twice
  tail_key     text,                                             -- durable bytes that no part holds yet
  tail_size    bigint not null default 0 check (tail_size >= 0),
  stored       boolean not null default false,                   -- the object exists, whole, under uploads.object_key
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade,
  check ((tail_key is null) = (tail_size = 0)),
  check (object_key is not null or (multipart_id is null and not stored))
) with (fillfactor = 70);

create table parts (
  tenant_id uuid not null,
  upload_id uuid not null,
  number    integer not null check (number between 1 and 10000),
  size      bigint not null check (size > 0),
  etag      text not null,
  primary key (tenant_id, upload_id, number),
  foreign key (tenant_id, upload_id) references contents (tenant_id, upload_id) on delete cascade
);

create table derivatives (
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

-- What happened to an upload, in order. Written only in the transaction that makes it true.
create table timeline (
  tenant_id uuid not null,
  upload_id uuid not null,
  seq       bigint generated always as identity,
  at        timestamptz not null default clock_timestamp(),
  event     text not null,
  detail    jsonb not null default '{}',
  primary key (tenant_id, upload_id, seq),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);

-- Leases. A process lives in lease_holders while it heartbeats; what it holds is in upload_leases.
-- lease_holders is the one table without a tenant: its rows are processes.
create table lease_holders (
  id         uuid primary key,
  replica    text not null,
  expires_at timestamptz not null
);
create sequence fences;
create table upload_leases (
  tenant_id uuid not null,
  upload_id uuid not null,
  holder_id uuid not null references lease_holders (id) on delete cascade,
  fence     bigint not null,
  waiter    uuid,                                   -- who asked for it last; while somebody waits, all are told when this row goes
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);
create index upload_leases_holder on upload_leases (holder_id);

-- +goose StatementBegin
do $$
declare t text;
begin
  foreach t in array array['uploads', 'contents', 'parts', 'derivatives', 'timeline', 'upload_leases'] loop
    execute format('alter table %I enable row level security, force row level security', t);
    -- After a SET LOCAL has ended the setting is '', not NULL, and ''::uuid is an error.
    execute format($p$create policy tenant on %I
      using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
      with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)$p$, t);
  end loop;
end $$;
-- +goose StatementEnd
alter table tenants enable row level security, force row level security;
create policy tenant on tenants
  using (id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (id = nullif(current_setting('app.tenant_id', true), '')::uuid);

grant select on tenants to tramo_api;
grant update (charged_bytes) on tenants to tramo_api;
grant select, insert, update on uploads to tramo_api;
grant select, insert, update, delete on contents, parts to tramo_api;
grant select on derivatives to tramo_api;
grant select, insert on timeline to tramo_api;
grant select, insert, update, delete on lease_holders, upload_leases to tramo_api, tramo_worker;
grant usage on sequence fences to tramo_api, tramo_worker;
grant select, insert, update, delete on tenants, uploads, contents, parts, derivatives, timeline to tramo_worker;

reset role;
