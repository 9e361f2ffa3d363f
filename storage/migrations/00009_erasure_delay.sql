-- +goose Up
-- The erasures of users and tenants start after a delay, and can be cancelled until then. Workers of the previous release do
-- not know the state scheduled and leave such erasures alone; its servers request erasures that start at once.
set local role tramo_owner;

alter table erasures
  add column starts_at timestamptz, -- null while it waits, and if a previous release's server requested it
  drop constraint erasures_state_check,
  drop constraint erasures_check1,
  add constraint erasures_state_check check (state in ('waiting', 'scheduled', 'running', 'done', 'cancelled')),
  -- Only the erasure of a tenant is approved, and that of an upload starts at once.
  add constraint erasures_approval check (kind = 'tenant' or (state <> 'waiting' and approved_by is null)),
  add constraint erasures_delay check ((kind <> 'upload' or state not in ('scheduled', 'cancelled'))
    and (state <> 'scheduled' or starts_at is not null));
create index erasures_scheduled on erasures (starts_at) where state = 'scheduled';

grant insert (starts_at), update (starts_at) on erasures to tramo_api;

-- Workers start what is scheduled; servers cancel it.
drop trigger decided on erasures;
create trigger decided before update on erasures for each row
  when (current_user = 'tramo_api' and not (old.state = 'waiting' and new.state in ('scheduled', 'running', 'cancelled')
    or old.state = 'scheduled' and new.state = 'cancelled' and new.starts_at = old.starts_at))
  execute function refuse_api('state');

reset role;
