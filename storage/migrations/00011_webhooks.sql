-- +goose Up
-- Who is told of announcements, by HTTP, and how far that has come.
set local role tramo_owner;

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

alter table announcements add column dispatched_at timestamptz;
create index announcements_waiting on announcements (created_at) where dispatched_at is null;
create index announcements_old on announcements (created_at);

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

-- +goose StatementBegin
do $$
declare t text;
begin
  foreach t in array array['webhook_endpoints', 'webhook_secrets', 'webhook_deliveries'] loop
    execute format('alter table %I enable row level security, force row level security', t);
    execute format($p$create policy tenant on %I
      using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
      with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)$p$, t);
  end loop;
end $$;
-- +goose StatementEnd

grant select, insert, delete on webhook_endpoints to tramo_api;
grant update (url, types, description, updated_at, failing_since, held_until, disabled_at, disabled_reason)
  on webhook_endpoints to tramo_api;
grant insert, select (tenant_id, endpoint_id, id, valid_until), update (valid_until) on webhook_secrets to tramo_api;
grant select, insert on webhook_deliveries to tramo_api;
grant update (state, attempts, job_id, claimed_at, next_attempt_at, ended_at, last_error) on webhook_deliveries to tramo_api;
grant select, insert, update, delete on webhook_endpoints, webhook_secrets, webhook_deliveries to tramo_worker;

reset role;
