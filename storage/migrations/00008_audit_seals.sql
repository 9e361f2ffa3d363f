-- +goose Up
-- Seals of the audit log: each has the digests of a range of a tenant's entries and the hash of the seal before it. Nobody but
-- the owner of the database changes or deletes one. The previous release neither writes nor reads them.
set local role tramo_owner;

create table audit_seals (
  tenant_id uuid not null references tenants (id),
  number    bigint not null check (number > 0),          -- from 1, without gaps
  sealed_at timestamptz not null,
  until     timestamptz not null,                        -- entries that are sealed later are not older
  last_seq  bigint not null,                             -- of its last entry: all entries up to it are sealed
  seqs      bigint[] not null,                           -- of its entries
  times     timestamptz[] not null,                      -- when they were made
  digests   bytea[] not null,                            -- SHA-256 of each
  previous  bytea not null check (octet_length(previous) = 32), -- the hash of the seal before; zeros for the first
  hash      bytea not null check (octet_length(hash) = 32),
  primary key (tenant_id, number),
  unique (tenant_id, last_seq),
  check (cardinality(seqs) > 0 and cardinality(seqs) = cardinality(times) and cardinality(seqs) = cardinality(digests))
);
alter table audit_seals enable row level security, force row level security;
create policy tenant on audit_seals
  using (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
grant select on audit_seals to tramo_api;
grant select, insert on audit_seals to tramo_worker;

-- Workers seal what is older than ten minutes. So a transaction that has waited for longer than nine, or whose entry stands
-- before what is sealed, may not commit it.
-- +goose StatementBegin
create function in_time() returns trigger language plpgsql as $$
begin
  if new.at < clock_timestamp() - interval '9 minutes'
     or exists (select from audit_seals s where s.tenant_id = new.tenant_id and s.last_seq >= new.seq) then
    raise object_not_in_prerequisite_state using message = format('entry %s of the audit log comes too late', new.seq);
  end if;
  return null;
end $$;
-- +goose StatementEnd
create constraint trigger in_time after insert on audit deferrable initially deferred
  for each row execute function in_time();

reset role;
