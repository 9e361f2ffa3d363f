package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// A dueDelivery is a delivery whose next attempt is due.
type dueDelivery struct {
	Tenant   uuid.UUID `db:"tenant_id"`
	Delivery uuid.UUID `db:"id"`
	TraceID  *string   `db:"trace_id"` // that its announcement belongs to
}

// Bounds of one dispatch, so that its transaction is short.
const (
	maxFanOut = 500
	maxClaims = 1000
)

// dispatch makes a delivery of each new announcement for each endpoint that wants it, and adds a job for each delivery that is
// due, all in one transaction. Of one endpoint at most window deliveries have a job at a time, and one of an endpoint that has
// failed for a minute. It returns how many jobs it added. While another process dispatches, it does nothing.
func (d *Dispatcher) dispatch(ctx context.Context) (n int, err error) {
	err = d.db.InAllTenants(ctx, func(tx pgx.Tx) error {
		var mine bool
		err := tx.QueryRow(ctx, `select pg_try_advisory_xact_lock(hashtext('tramo.dispatch_webhooks'))`).Scan(&mine)
		if err != nil || !mine {
			return err
		}
		if err := fanOut(ctx, tx); err != nil {
			return err
		}
		due, err := dueDeliveries(ctx, tx)
		if err != nil || len(due) == 0 {
			return err
		}
		jobs := make([]queue.Args, len(due))
		for i, one := range due {
			jobs[i] = queue.Args{Tenant: one.Tenant, Delivery: one.Delivery}
			if one.TraceID != nil {
				jobs[i].TraceID = *one.TraceID
			}
		}
		ids, err := d.queue.EnqueueDeliveries(ctx, tx, jobs)
		if err != nil {
			return err
		}
		n = len(due)
		return claim(ctx, tx, due, ids)
	})
	if err != nil {
		return 0, fmt.Errorf("dispatch webhooks: %w", err)
	}
	return n, nil
}

// fanOut makes deliveries of new announcements.
func fanOut(ctx context.Context, tx pgx.Tx) error {
	type pair struct {
		Tenant       uuid.UUID  `db:"tenant_id"`
		Announcement uuid.UUID  `db:"id"`
		Endpoint     *uuid.UUID `db:"endpoint_id"`
	}
	rows, err := tx.Query(ctx, `
		with taken as (
			select tenant_id, id, type, created_at from announcements where dispatched_at is null
			order by created_at limit $1 for update skip locked
		)
		select t.tenant_id, t.id, e.id endpoint_id from taken t left join webhook_endpoints e on e.tenant_id = t.tenant_id
			and e.disabled_at is null and e.created_at <= t.created_at and (e.types = '{}' or t.type = any(e.types))
		order by t.created_at`, maxFanOut)
	pairs, err := storage.Collect[pair]("look for new announcements", rows, err)
	if err != nil || len(pairs) == 0 {
		return err
	}
	var tenants, announcements, endpoints, ids []uuid.UUID
	var all []uuid.UUID
	for _, p := range pairs {
		all = append(all, p.Announcement)
		if p.Endpoint == nil {
			continue
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		tenants, ids = append(tenants, p.Tenant), append(ids, id)
		announcements, endpoints = append(announcements, p.Announcement), append(endpoints, *p.Endpoint)
	}
	// An endpoint that was deleted meanwhile has no row to join.
	_, err = tx.Exec(ctx, `
		insert into webhook_deliveries (tenant_id, id, endpoint_id, announcement_id)
		select n.tenant_id, n.id, e.id, n.announcement_id
		from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[]) n (tenant_id, id, endpoint_id, announcement_id)
		join (select tenant_id, id from webhook_endpoints where id = any($3) for key share) e
			on e.tenant_id = n.tenant_id and e.id = n.endpoint_id
		on conflict do nothing`, tenants, ids, endpoints, announcements)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `update announcements set dispatched_at = now() where dispatched_at is null and id = any($1)`, all)
	return err
}

func dueDeliveries(ctx context.Context, tx pgx.Tx) ([]dueDelivery, error) {
	rows, err := tx.Query(ctx, `
		select d.tenant_id, d.id, a.trace_id
		from webhook_endpoints e cross join lateral (
			select d.tenant_id, d.id, d.announcement_id, d.next_attempt_at from webhook_deliveries d
			where d.tenant_id = e.tenant_id and d.endpoint_id = e.id
			  and d.state = 'pending' and d.job_id is null and d.next_attempt_at <= now()
			order by d.next_attempt_at, d.id
			limit greatest(0, case when e.failing_since < now() - interval '1 minute' then 1 else $1 end - (
				select count(*) from webhook_deliveries u
				where u.tenant_id = e.tenant_id and u.endpoint_id = e.id and u.state = 'pending' and u.job_id is not null))
		) d join announcements a on a.tenant_id = d.tenant_id and a.id = d.announcement_id
		where e.disabled_at is null and (e.held_until is null or e.held_until <= now())
		order by d.next_attempt_at limit $2`, window, maxClaims)
	return storage.Collect[dueDelivery]("look for due deliveries", rows, err)
}

func claim(ctx context.Context, tx pgx.Tx, due []dueDelivery, jobs []int64) error {
	tenants, ids := make([]uuid.UUID, len(due)), make([]uuid.UUID, len(due))
	for i, d := range due {
		tenants[i], ids[i] = d.Tenant, d.Delivery
	}
	_, err := tx.Exec(ctx, `
		update webhook_deliveries d set job_id = n.job_id, claimed_at = now()
		from unnest($1::uuid[], $2::uuid[], $3::bigint[]) n (tenant_id, id, job_id)
		where d.tenant_id = n.tenant_id and d.id = n.id and d.state = 'pending'`, tenants, ids, jobs)
	return err
}

// reclaim makes deliveries due again whose job has ended without a result, or has run for longer than age: their worker died. It
// returns how many.
func reclaim(ctx context.Context, db *storage.DB, age time.Duration) (int64, error) {
	return storage.Exec(ctx, db.Pool(), "reclaim deliveries", `
		update webhook_deliveries d set job_id = null
		where d.state = 'pending' and d.job_id is not null and d.claimed_at < now() - $1::interval
			and not `+queue.Works("d.job_id", "$1::interval"), age)
}

// sweep deletes announcements older than age that have no pending delivery, with their deliveries, and expired secrets; at most limit
// announcements. It returns how many.
func sweep(ctx context.Context, db *storage.DB, age time.Duration, limit int) (int64, error) {
	if _, err := db.Pool().Exec(ctx, `delete from webhook_secrets where valid_until < now()`); err != nil {
		return 0, fmt.Errorf("sweep webhook secrets: %w", err)
	}
	return storage.Exec(ctx, db.Pool(), "sweep announcements", `
		delete from announcements where (tenant_id, id) in (
			select a.tenant_id, a.id from announcements a
			where a.created_at < now() - $1::interval and a.dispatched_at is not null and not exists (
				select from webhook_deliveries d
				where d.tenant_id = a.tenant_id and d.announcement_id = a.id and (d.state = 'pending' or d.ended_at > now() - $1::interval))
			order by a.created_at limit $2)`, age, limit)
}

// A backlog counts the deliveries of all tenants.
type backlog struct {
	Pending int64   `db:"pending"` // deliveries, and new announcements
	Dead    int64   `db:"dead"`    // dead letters that are kept
	Oldest  float64 `db:"oldest"`  // the age of the oldest pending one, seconds
	Overdue float64 `db:"overdue"` // how late the next attempt of a delivery is, at most, seconds
}

func countBacklog(ctx context.Context, db *storage.DB) (backlog, error) {
	rows, err := db.Pool().Query(ctx, `
		select (select count(*) from webhook_deliveries where state = 'pending')
				+ (select count(*) from announcements where dispatched_at is null) pending,
			(select count(*) from webhook_deliveries where state = 'dead') dead,
			coalesce(extract(epoch from now() - least(
				(select min(created_at) from webhook_deliveries where state = 'pending'),
				(select min(created_at) from announcements where dispatched_at is null))), 0)::float8 oldest,
			greatest(0, coalesce(extract(epoch from now() - (
				select min(next_attempt_at) from webhook_deliveries where state = 'pending')), 0))::float8 overdue`)
	return storage.CollectOne[backlog]("count webhooks", rows, err)
}
