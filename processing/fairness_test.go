package processing

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// arrive makes n uploads of the tenant in ctx, each with its job.
func (p *plant) arrive(t *testing.T, ctx context.Context, n int) (ids []uuid.UUID) {
	t.Helper()
	for range n {
		id := uuid.Must(uuid.NewV7())
		must(t, p.API.InTenant(ctx, func(tx storage.Tx) error {
			err := tx.CreateUpload(ctx, storage.NewUpload{ID: id, UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 1})
			if err != nil {
				return err
			}
			if _, err := tx.MarkUploaded(ctx, id, id.String(), make([]byte, 32)); err != nil {
				return err
			}
			return p.queue.Enqueue(ctx, tx, id)
		}))
		ids = append(ids, id)
	}
	return ids
}

// priorities tells how many waiting jobs of the tenant in ctx have which priority, in the order of arrival.
func (p *plant) priorities(t *testing.T, ctx context.Context) string {
	t.Helper()
	who, err := tenant.From(ctx)
	must(t, err)
	var runs string
	must(t, p.Worker.Pool().QueryRow(t.Context(), `
		select coalesce(string_agg(n || 'x' || priority, ' ' order by first), '') from (
			select priority, count(*) n, min(id) first from river_job
			where state = 'available' and args->>'tenant_id' = $1 group by priority) j`,
		who.Tenant.String()).Scan(&runs))
	return runs
}

// next is the tenant whose job River would fetch.
func (p *plant) next(t *testing.T) (id uuid.UUID) {
	t.Helper()
	must(t, p.Worker.Pool().QueryRow(t.Context(), `
		select args->>'tenant_id' from river_job where state = 'available' order by priority, scheduled_at, id limit 1`).Scan(&id))
	return id
}

func (p *plant) wantPriorities(t *testing.T, when string, ctx context.Context, want string) {
	t.Helper()
	if got := p.priorities(t, ctx); got != want {
		t.Errorf("%s: jobs by priority are %s, want %s", when, got, want)
	}
}

// A burst comes behind another tenant's single photo, but for its first few; and those that are left of it move up, so
// that none waits for ever.
func TestBurstGivesWay(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	other, late := p.NewTenant(t, 1<<30), p.NewTenant(t, 1<<30)
	p.arrive(t, p.ctx, 510)
	p.arrive(t, other, 1)
	p.wantPriorities(t, "a burst", p.ctx, "4x1 46x2 450x3 10x4")
	p.wantPriorities(t, "a single photo", other, "1x1")

	rank := func() int64 {
		t.Helper()
		moved, err := p.Worker.RankJobs(t.Context(), marks)
		must(t, err)
		return moved
	}
	if moved := rank(); moved != 0 {
		t.Errorf("%d jobs moved without a reason", moved)
	}
	p.exec(t, `delete from river_job where id in (select id from river_job order by priority, id limit 4)`) // worked
	if moved := rank(); moved != 4+4+4 {
		t.Errorf("%d jobs moved, want 12", moved)
	}
	// What moved up has been there for longer, and yet comes behind.
	if next := p.next(t); next != tenantOf(t, other) {
		t.Error("the burst's next few come before the single photo")
	}
	p.wantPriorities(t, "later", p.ctx, "4x1 46x2 450x3 6x4")

	// Many that arrive at the same moment do not see each other.
	p.arrive(t, late, 60)
	p.exec(t, fmt.Sprintf(`update river_job set priority = 1 where args->>'tenant_id' = '%s'`, tenantOf(t, late)))
	p.exec(t, fmt.Sprintf(`update river_job set state = 'running' where id = (
		select min(id) from river_job where args->>'tenant_id' = '%s')`, tenantOf(t, late)))
	rank()
	p.wantPriorities(t, "put right", late, "4x1 46x2 9x3")
	if n := p.count(t, `select count(*) from river_job where state = 'running' and priority = 1`); n != 1 {
		t.Errorf("a running job was ranked")
	}
}

func tenantOf(t *testing.T, ctx context.Context) uuid.UUID {
	t.Helper()
	who, err := tenant.From(ctx)
	must(t, err)
	return who.Tenant
}

// A running pool ranks what waits.
func TestPoolRanks(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.arrive(t, p.ctx, 60)
	p.exec(t, `update river_job set queue = 'elsewhere', priority = 4`) // nobody works them
	p.run(t)
	await(t, "jobs are ranked", func() bool { return p.priorities(t, p.ctx) == "4x1 46x2 10x3" })
}

// Each tenant's quota can be watched, under the name that operators know.
func TestQuotaMetric(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	must(t, p.API.InTenant(p.ctx, func(tx storage.Tx) error {
		return tx.CreateUpload(p.ctx, storage.NewUpload{
			ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 1 << 28,
		})
	}))
	p.exec(t, `update tenants set name = 'Obras S.A.'`)
	_, _, err := p.Worker.CreateTenant(t.Context(), "Nada", 0)
	must(t, err)
	registry := prometheus.NewRegistry()
	registry.MustRegister(&Depth{DB: p.Worker, Log: slog.New(slog.DiscardHandler)})
	families, err := registry.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tramo_tenant_quota_used_ratio" {
			continue
		}
		for _, m := range f.GetMetric() {
			got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	if want := map[string]float64{"Obras S.A.": 0.25, "Nada": 1}; !maps.Equal(got, want) {
		t.Errorf("the metric says %v, want %v", got, want)
	}
}
