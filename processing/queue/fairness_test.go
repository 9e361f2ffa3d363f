package queue

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// priorities tells how many waiting jobs of the tenant in ctx have which priority, in the order of arrival.
func (p *fixture) priorities(t *testing.T, ctx context.Context) string {
	t.Helper()
	var runs string
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `
		select coalesce(string_agg(n || 'x' || priority, ' ' order by first), '') from (
			select priority, count(*) n, min(id) first from river_job
			where state = 'available' and args->>'tenant_id' = $1 group by priority) j`,
		storagetest.TenantOf(t, ctx).String()).Scan(&runs))
	return runs
}

// next is the tenant whose job River would fetch.
func (p *fixture) next(t *testing.T) (id uuid.UUID) {
	t.Helper()
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `
		select args->>'tenant_id' from river_job where state = 'available' order by priority, scheduled_at, id limit 1`).Scan(&id))
	return id
}

func (p *fixture) wantPriorities(t *testing.T, when string, ctx context.Context, want string) {
	t.Helper()
	stack.Want(t, p.priorities(t, ctx), want, "%s, jobs by priority", when)
}

// A burst comes behind another tenant's single photo, but for its first few; and those that are left of it move up, so
// that none waits for ever.
func TestBurstGivesWay(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	other, late := p.NewTenant(t, 1<<30), p.NewTenant(t, 1<<30)
	p.arrive(t, p.ctx, 510)
	p.arrive(t, other, 1)
	p.wantPriorities(t, "a burst", p.ctx, "4x1 46x2 450x3 10x4")
	p.wantPriorities(t, "a single photo", other, "1x1")

	rank := func() int64 {
		t.Helper()
		moved, err := rankJobs(t.Context(), p.Worker)
		stack.Must(t, err)
		return moved
	}
	stack.Want(t, rank(), 0, "number of jobs that moved without a reason")
	p.Exec(t, `delete from river_job where id in (select id from river_job order by priority, id limit 4)`) // worked
	stack.Want(t, rank(), 4+4+4, "number of jobs that moved")
	// What moved up has been there for longer, and yet comes behind.
	stack.Want(t, p.next(t), storagetest.TenantOf(t, other), "tenant of the next job, whose single photo comes before the burst's next few")
	p.wantPriorities(t, "later", p.ctx, "4x1 46x2 450x3 6x4")

	// Many that arrive at the same moment do not see each other.
	p.arrive(t, late, 60)
	p.Exec(t, fmt.Sprintf(`update river_job set priority = 1 where args->>'tenant_id' = '%s'`, storagetest.TenantOf(t, late)))
	p.Exec(t, fmt.Sprintf(`update river_job set state = 'running' where id = (
		select min(id) from river_job where args->>'tenant_id' = '%s')`, storagetest.TenantOf(t, late)))
	rank()
	p.wantPriorities(t, "put right", late, "4x1 46x2 9x3")
	p.WantCount(t, 1, `select count(*) from river_job where state = 'running' and priority = 1`)
}

// A running pool ranks what waits.
func TestPoolRanks(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.arrive(t, p.ctx, 60)
	p.Exec(t, `update river_job set priority = 4`)
	p.run(t, func(pool *Pool) { // nobody works them
		pool.Register(Erase, Pass(func(context.Context) error { return nil }, p.log), Options{Workers: 1})
	})
	stack.Until(t, "jobs are ranked", func() bool { return p.priorities(t, p.ctx) == "4x1 46x2 10x3" })
}

// The priority of a new job follows from the tenant's uploads that wait for workers. Uploads that have ended, or are not uploaded
// yet, do not count, nor do those of other tenants.
func TestNextPriority(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.arrive(t, p.NewTenant(t, 1<<30), 5)
	for i, want := range []int{1, 1, 1, 1, 2} {
		p.arrive(t, p.ctx, 1)
		p.Must(t, p.ctx, func(tx storage.Tx) error {
			waiting := CountWaiting(tx)
			err := storage.Flush(p.ctx, tx)
			stack.Want(t, priorityOf(*waiting), want, "with %d uploads", i+1)
			return err
		})
	}
	for _, status := range []string{"pending", "completed"} {
		p.Exec(t, `update uploads set status = $1 where id = (select max(id::text)::uuid from uploads where status = 'uploaded' and tenant_id = $2)`, status, storagetest.TenantOf(t, p.ctx))
	}
	p.Exec(t, `update uploads set status = 'processing' where tenant_id = $1 and status = 'uploaded'`, storagetest.TenantOf(t, p.ctx))
	p.Must(t, p.ctx, func(tx storage.Tx) error {
		waiting := CountWaiting(tx)
		err := storage.Flush(p.ctx, tx)
		stack.Want(t, priorityOf(*waiting), 1, "with 3 uploads that wait")
		return err
	})
}
