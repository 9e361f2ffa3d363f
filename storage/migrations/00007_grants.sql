-- +goose Up
-- What the servers' role may write inside a tenant: columns instead of tables, and no row that says what only a worker, an
-- operator or another person can say. Servers of the previous release write the same columns, and go on.
set local role tramo_owner;

-- Times that are evidence are Postgres' own: their columns have defaults, and no program may name them.
revoke insert on audit, announcements, idempotency_keys, batches, erasures, webhook_endpoints, webhook_deliveries, webhook_secrets,
  uploads, timeline, event_tickets, lease_holders, upload_leases, tails from tramo_api;
revoke insert on audit from tramo_worker;
revoke update on uploads, contents, parts, lease_holders, upload_leases from tramo_api;
revoke insert, delete on contents from tramo_api;
revoke insert on parts from tramo_api;
revoke select on lease_holders from tramo_api;

grant insert (tenant_id, actor, role, home_tenant, action, subject, outcome, address, request_id, trace_id, detail)
  on audit to tramo_api, tramo_worker;
grant insert (tenant_id, type, upload_id, batch_id, detail, trace_id, dispatched_at) on announcements to tramo_api;
grant insert (tenant_id, user_id, key, request, answer) on idempotency_keys to tramo_api;
grant insert (tenant_id, id, project, name, client_id, user_id, manifest) on batches to tramo_api;
grant insert (tenant_id, id, kind, subject, state, requested_by, requested_home, requested_from) on erasures to tramo_api;
grant insert (tenant_id, id, url, types, description, user_id) on webhook_endpoints to tramo_api;
grant insert (tenant_id, id, endpoint_id, announcement_id) on webhook_deliveries to tramo_api;
grant insert (tenant_id, endpoint_id, id, sealed) on webhook_secrets to tramo_api;
-- "at" of an entry may be when a body began, by the server's clock. The timeline is for support; evidence is in the audit log.
grant insert (tenant_id, upload_id, event, at, at_offset, duration_ms, replica, trace_id, detail) on timeline to tramo_api;
grant insert (tenant_id, hash, expires_at, user_id, role, projects, home_tenant, token_expires_at, token_issued_at)
  on event_tickets to tramo_api;

-- An upload begins as pending, without an object.
grant insert (tenant_id, id, user_id, client_id, project, batch, batch_id, filename, declared_type, declared_sha256, metadata,
  metadata_header, kind, partials, size, charged_bytes) on uploads to tramo_api;
grant update (status, failure_reason, failure_detail, sha256, object_key, size, charged_bytes, batch, batch_id, replaced_by,
  final_id, updated_at, uploaded_at, deleted_at, purge_at, remains) on uploads to tramo_api;
grant insert (tenant_id, upload_id) on contents to tramo_api;
grant update (received, hash_state, object_key, multipart_id, next_part, tail_size, stored, touched_at) on contents to tramo_api;
grant insert (tenant_id, upload_id, number, size, etag, checksum) on parts to tramo_api;
grant insert (tenant_id, upload_id, start, data) on tails to tramo_api;

-- A server deletes the lease of an upload whenever a request ends. Whose lease somebody else deletes, inside the tenant, cannot
-- write any more: its fence is gone.
grant insert (tenant_id, upload_id, holder_id, fence), update (holder_id, fence, waiter) on upload_leases to tramo_api;
-- Not the id of the process: a server proves with it that a row is its own.
grant select (id, replica, expires_at, since), insert (id, replica, process, expires_at), update (expires_at)
  on lease_holders to tramo_api;

-- Rows in the name of Tramo's own programs are written by these. The names are those of package tenant.
create policy programs on audit as restrictive for insert to tramo_api
  with check (lower(actor) not in ('worker', 'eraser', 'reconciler', 'rescan', 'operator', 'erased'));
-- An announcement that no webhook is to get is a test, whose one delivery is made with it.
create policy undispatched on announcements as restrictive for insert to tramo_api
  with check (dispatched_at is null or type = 'webhook.test');
-- A server restarts deliveries and gives them up. It does not deliver.
create policy undelivered on webhook_deliveries as restrictive for update to tramo_api
  using (true) with check (state <> 'delivered' and job_id is null);

-- Triggers say what a change may be, which policies cannot: they do not see the row as it was. They bind the servers' role.
-- +goose StatementBegin
create function refuse_api() returns trigger language plpgsql as $$
begin
  raise insufficient_privilege using message = format('tramo_api may not make this change of %s: %s', tg_table_name, tg_argv[0]);
end $$;

-- moments refuses a time, in one of the columns named, that is not the transaction's own.
create function moments() returns trigger language plpgsql as $$
declare
  col text;
begin
  foreach col in array tg_argv loop
    if to_jsonb(new) -> col not in (to_jsonb(old) -> col, to_jsonb(now())) then
      raise insufficient_privilege using message = format('tramo_api may set %s of %s to now only', col, tg_table_name);
    end if;
  end loop;
  return new;
end $$;

-- own_holder lets a server prolong the registration of a process that lives, by as much as a time to live can be. It may
-- otherwise change and delete the row of its own process only, whose id it sets as app.process. A row that has expired is
-- anybody's to delete.
create function own_holder() returns trigger language plpgsql as $$
declare
  own boolean := coalesce(old.process::text = current_setting('app.process', true), false);
begin
  if tg_op = 'DELETE' then
    if own or old.expires_at <= clock_timestamp() then
      return old;
    end if;
    return null; -- a server of the previous release, which stops: its row expires
  end if;
  if new.expires_at > clock_timestamp() + interval '2 minutes'
     or not own and (old.expires_at <= clock_timestamp() or new.expires_at < old.expires_at) then
    raise insufficient_privilege using message = 'tramo_api may not make this change of lease_holders';
  end if;
  return new;
end $$;

-- own_job is for River's table, which has no tenant. See riverGrants.
create function own_job() returns trigger language plpgsql as $$
begin
  if new.state <> 'available' or new.unique_key is not null
     or not (new.kind = 'erase' and new.queue = 'erase' and new.args = '{}'
             or new.kind = 'process_upload' and new.queue = 'default' and new.args - 'upload_id' =
                jsonb_build_object('tenant_id', nullif(current_setting('app.tenant_id', true), ''))
                and exists (select from uploads u where u.id = (new.args ->> 'upload_id')::uuid)) then
    raise insufficient_privilege using message = 'tramo_api may not add this job';
  end if;
  return new;
end $$;
-- +goose StatementEnd

-- Only a worker says that content was scanned, and what is stored of an upload is never exchanged.
create trigger unscanned before update of status on uploads for each row
  when (current_user = 'tramo_api' and new.status in ('processing', 'completed') and old.status <> new.status)
  execute function refuse_api('status');
create trigger stored before update of sha256, object_key, size, uploaded_at on uploads for each row
  when (current_user = 'tramo_api' and old.uploaded_at is not null and (new.sha256, new.object_key, new.size, new.uploaded_at)
    is distinct from (old.sha256, old.object_key, old.size, old.uploaded_at))
  execute function refuse_api('stored content');
create trigger moments before update on scans for each row
  when (current_user = 'tramo_api') execute function moments('released_at');
create trigger moments before update on dead_letters for each row
  when (current_user = 'tramo_api') execute function moments('retried_at', 'discarded_at');
create trigger moments before update of erasing_at on tenants for each row
  when (current_user = 'tramo_api') execute function moments('erasing_at');
create trigger decided before update on erasures for each row
  when (current_user = 'tramo_api' and not (old.state = 'waiting' and new.state in ('running', 'cancelled')))
  execute function refuse_api('state');
create trigger moments before update on erasures for each row
  when (current_user = 'tramo_api') execute function moments('approved_at', 'ended_at');
create trigger own before update or delete on lease_holders for each row
  when (current_user = 'tramo_api') execute function own_holder();

reset role;
