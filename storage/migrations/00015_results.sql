-- +goose Up
-- What processing finds out, and what it keeps between its attempts (docs/processing.md).
set local role tramo_owner;

alter table uploads
  add column type_mismatch boolean not null default false,  -- it is not of the kind that its sender said
  add column partial       boolean not null default false,  -- its pictures show a part of it: the rest is missing or damaged
  add column placeholder   text check (octet_length(placeholder) <= 64), -- ThumbHash, base64: what a list shows while pictures load
  add column no_picture    text check (no_picture in            -- why there is no picture of something that can have one
    ('too_large', 'memory', 'cpu', 'time', 'output', 'unsupported', 'protected', 'tool_missing')),
  add column pages         integer check (pages > 0),
  add column title         text;

-- What an attempt has found out, step by step, so that the next one repeats only what failed. A row goes when its upload ends.
create table findings (
  tenant_id uuid not null,
  upload_id uuid not null,
  done      text[] not null,  -- the steps that need not run again
  results   jsonb not null,   -- what they found
  primary key (tenant_id, upload_id),
  foreign key (tenant_id, upload_id) references uploads (tenant_id, id) on delete cascade
);
alter table findings enable row level security, force row level security;
create policy tenant on findings
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select, insert, update, delete on findings to tramo_worker;

reset role;
