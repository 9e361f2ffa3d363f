-- +goose Up
-- What the virus scanner said of each upload, with the signatures that it knew then, and who let out of quarantine what it
-- had found (docs/quarantine.md). One row an upload: the latest scan.
set local role tramo_owner;

create table scans (
  tenant_id           uuid not null,
  upload_id           uuid not null,
  verdict             text not null check (verdict in ('clean', 'infected', 'unscannable', 'oversize_passed')),
  signature           text,                         -- the name of what was found
  engine              text,                         -- such as ClamAV 1.4.3
  signatures          bigint,                       -- the version of its daily database
  signed_at           timestamptz,                  -- when that was made
  scanned_at          timestamptz not null default now(),
  released_by         text,                         -- who let it out of quarantine last
  released_at         timestamptz,
  release_reason      text,
  released_signatures text[] not null default '{}', -- what it was found to be, and let out in spite of
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade,
  check (verdict not in ('infected', 'unscannable') or signature is not null),
  check ((released_by is null) = (released_at is null) and (released_by is null) = (release_reason is null))
);
create index scans_condemned on scans (tenant_id, upload_id) where verdict in ('infected', 'unscannable');

alter table scans enable row level security, force row level security;
create policy tenant on scans
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
-- Servers let out of quarantine; what the scanner said only workers write.
grant select on scans to tramo_api;
grant update (released_by, released_at, release_reason, released_signatures) on scans to tramo_api;
grant select, insert, update, delete on scans to tramo_worker;

reset role;
