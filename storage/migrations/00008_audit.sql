-- +goose Up
-- The audit log tells of all of a tenant's projects: who is narrowed to some may append to it and read nothing, nor
-- may an investor. Its indexes serve the filters of a log that is kept for ever.
set local role tramo_owner;

create policy whole on audit as restrictive for select
  using (coalesce(current_setting('app.projects', true), '') = '' and coalesce(current_setting('app.completed_only', true), '') = '');

create index audit_actor on audit (tenant_id, actor, seq);
create index audit_subject on audit (tenant_id, subject, seq) where subject is not null;

reset role;
