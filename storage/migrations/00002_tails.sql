-- +goose Up
-- Bytes that no part holds yet are kept here and no longer in S3: appending to them costs no S3 request and
-- rewrites nothing (docs/adr/0008). Uploads grow a kind and may not know their size yet.
set local role tramo_owner;

-- What only the tail object of an earlier build held cannot be brought over: such an upload ends, and its
-- client sends the file again under the same client id.
update uploads u set status = 'failed', failure_reason = 'lost', charged_bytes = 0, updated_at = now(),
  failure_detail = 'What had been stored of this file is gone. Send it again.'
from contents c
where c.tenant_id = u.tenant_id and c.upload_id = u.id and c.tail_key is not null
  and u.status in ('pending', 'uploading');

alter table contents
  drop column tail_key,                                          -- and with it the check that names it
  add column touched_at timestamptz not null default now();      -- when the offset moved last; expiry counts from it

create table tails (
  tenant_id uuid not null,
  upload_id uuid not null,
  start     bigint not null check (start >= 0),                  -- offset of the first byte
  data      bytea not null check (octet_length(data) > 0),
  primary key (tenant_id, upload_id, start),
  foreign key (tenant_id, upload_id) references contents (tenant_id, upload_id) on delete cascade
);
alter table tails alter column data set storage external;        -- photos do not compress
alter table tails enable row level security, force row level security;
create policy tenant on tails
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select, insert, delete on tails to tramo_api, tramo_worker;

alter table parts add column checksum text not null default '';  -- CRC32C, Base64, as S3 checked it

alter table uploads
  alter column size drop not null,                               -- null while the client has not said (tus 1.0.0, Creation With Defer Length)
  add column kind text not null default 'single' check (kind in ('single', 'partial', 'final')),
  add column partials uuid[] not null default '{}',              -- of a final upload, in order (tus 1.0.0, Concatenation)
  add check ((kind = 'final') = (partials <> '{}')),
  drop constraint uploads_status_check,
  add constraint uploads_status_check check (status in
    ('pending', 'uploading', 'uploaded', 'processing', 'completed', 'failed', 'expired', 'cancelled', 'joined'));
drop index uploads_client_id;
create unique index uploads_client_id on uploads (tenant_id, user_id, client_id)
  where client_id is not null and status not in ('failed', 'expired', 'cancelled', 'joined');

reset role;
