-- +goose Up
-- Inside a tenant, a token may name the only projects that there are for its user, and an investor sees what is
-- completed and nothing else. Both narrow what a transaction sees of uploads, and through them of everything.
set local role tramo_owner;

create policy scope on uploads as restrictive
  using ((coalesce(current_setting('app.projects', true), '') = ''
          or project = any (string_to_array(current_setting('app.projects', true), ',')))
         and (coalesce(current_setting('app.completed_only', true), '') = '' or status = 'completed'))
  with check (coalesce(current_setting('app.projects', true), '') = ''
              or project = any (string_to_array(current_setting('app.projects', true), ',')));

-- Who did what, from where, and how it ended. No role of an application may change or remove an entry.
create table audit (
  tenant_id   uuid not null references tenants (id),
  seq         bigint generated always as identity,
  at          timestamptz not null default clock_timestamp(),
  actor       text not null,                       -- the token's subject; "worker" and the like for our own programs
  role        text not null,
  home_tenant uuid,                                -- of an admin that acted in a tenant that is not its own
  action      text not null,
  subject     text,                                -- what was acted on: an id, or a user
  outcome     text not null,                       -- done, or why not
  address     text,                                -- the client's
  request_id  text,
  trace_id    text,
  detail      jsonb not null default '{}',
  primary key (tenant_id, seq)
);
alter table audit enable row level security, force row level security;
create policy tenant on audit
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select, insert on audit to tramo_api, tramo_worker;

reset role;
