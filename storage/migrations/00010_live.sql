-- +goose Up
-- Who listens to live state is told by NOTIFY, and looks itself at what has changed since: a notification can be
-- lost. Tickets stand for a token where a browser can send no header.
set local role tramo_owner;

-- Every change of status moves updated_at, and could be no HOT update before: uploads_unfinished has the status. The
-- offset moves far more often and is in contents, of which nothing is indexed but the key; uploads_receiving leads
-- to the few whose offset can have moved.
create index uploads_updated on uploads (tenant_id, updated_at);
create index uploads_receiving on uploads (tenant_id, id) where status in ('pending', 'uploading');
create index announcements_created on announcements (tenant_id, created_at);

create table event_tickets (
  tenant_id        uuid not null references tenants (id),
  hash             bytea not null check (octet_length(hash) = 32),   -- SHA-256 of the ticket, which is kept nowhere
  expires_at       timestamptz not null,
  user_id          text not null,
  role             text not null,
  projects         text[] check (projects <> '{}'),                  -- null for all
  home_tenant      uuid,                                             -- of an admin that acts in a tenant that is not its own
  token_expires_at timestamptz not null,                             -- of the token that the ticket was got with
  primary key (tenant_id, hash)
);
alter table event_tickets enable row level security, force row level security;
create policy tenant on event_tickets
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select, insert, delete on event_tickets to tramo_api;
grant select, update, delete on event_tickets to tramo_worker;     -- to erase a user, or a tenant

reset role;
