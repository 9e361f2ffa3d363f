-- +goose Up
-- Which tokens are valid: a tenant can be suspended, and tokens that were issued before a moment can be revoked. Servers of
-- the previous release do not look at either.
set local role tramo_owner;

alter table tenants add column suspended_at timestamptz; -- since when its tokens are refused; null while they are valid

-- The column is not called user_id: the erasure of a user must not make the user's tokens valid again.
create table revocations (
  tenant_id     uuid not null references tenants (id),
  subject       text not null,          -- of the tokens; '' for all of the tenant
  issued_before timestamptz not null,   -- tokens that were issued earlier are refused
  primary key (tenant_id, subject)
);
alter table revocations enable row level security, force row level security;
create policy tenant on revocations
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select on revocations to tramo_api;
grant select, insert, update, delete on revocations to tramo_worker;

alter table event_tickets add column token_issued_at timestamptz; -- of the token that the ticket was got with; null if it does not say

-- Two people decide on the erasure of a tenant: where each comes from is recorded beside the name.
alter table erasures
  add column requested_home uuid,   -- the tenant of the requester's token
  add column requested_from text,   -- the address
  add column approved_home  uuid,
  add column approved_from  text,
  -- An erasure of a previous release's server has no address, and is not judged by it.
  add constraint erasures_two_places check (approved_home <> requested_home or approved_from <> requested_from);
grant update (approved_home, approved_from) on erasures to tramo_api;

reset role;
