package storage_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// 2,000 creations at once, by two servers over 80 connections, fill a quota exactly and never go beyond, and its tenant
// is warned once at each mark.
func TestQuotaAtTheEdgeOfTwoServers(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	const size, fits, tries, connections = 7, 1000, 2000, 40
	ctx := d.NewTenant(t, size*fits+size-1)
	servers := []*storage.DB{openWide(t, d, connections), openWide(t, d, connections)}
	var admitted atomic.Int64
	g := new(errgroup.Group)
	g.SetLimit(2 * connections)
	for i := range tries {
		g.Go(func() error {
			err := servers[i%2].InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, storagetest.NewUpload(size)) })
			if errors.Is(err, storage.ErrQuotaExceeded) {
				return nil
			}
			admitted.Add(1)
			return err
		})
	}
	stack.Must(t, stack.Ended(t, "creations by two servers", g.Wait))
	stack.Want(t, admitted.Load(), fits, "admitted uploads")
	d.WantRoom(t, ctx, size-1)
	stack.Want(t, d.warnings(t, ctx), []int{80, 95}, "percents of the warnings")
}

func openWide(t *testing.T, d *database, connections int) *storage.DB {
	t.Helper()
	url := d.URL("tramo_api")
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(fmt.Sprintf("%s&pool_max_conns=%d", url, connections))})
	stack.Must(t, err)
	t.Cleanup(db.Close)
	return db
}

// warnings are the percents that the tenant was warned at, in order.
func (d *database) warnings(t *testing.T, ctx context.Context) (percents []int) {
	t.Helper()
	rows, err := d.Admin(t).Query(ctx, `
		select (detail->>'percent')::int from announcements
		where tenant_id = $1 and type = 'quota.warning' and (detail->>'charged_bytes')::bigint * 100
			>= (detail->>'percent')::bigint * (detail->>'quota_bytes')::bigint
		order by 1`, storagetest.TenantOf(t, ctx))
	stack.Must(t, err)
	for rows.Next() {
		var p int
		stack.Must(t, rows.Scan(&p))
		percents = append(percents, p)
	}
	stack.Must(t, rows.Err())
	return percents
}

// A tenant is warned when its charge crosses a percentage, not while it stays above, and again after it was below.
func TestQuotaWarnings(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	step := func(size int64, want ...int) uuid.UUID {
		t.Helper()
		id := d.Create(t, ctx, size)
		stack.Want(t, d.warnings(t, ctx), want, "percents of the warnings after %d bytes more", size)
		return id
	}
	first := step(799)
	edge := step(1, 80)
	step(100, 80)
	last := step(50, 80, 95)
	cancel := func(id uuid.UUID) {
		t.Helper()
		d.Must(t, ctx, func(tx storage.Tx) error { return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel}) })
	}
	cancel(last)
	step(50, 80, 95, 95)
	cancel(edge)
	step(50, 80, 95, 95, 95) // 949 → 999: it never fell below 80
	cancel(first)
	d.change(t, ctx, storage.TenantChange{QuotaBytes: new(int64(201))})
	step(1, 80, 95, 95, 95)
}

// change changes the tenant as an operator does.
func (d *database) change(t *testing.T, ctx context.Context, c storage.TenantChange) storage.Tenant {
	t.Helper()
	changed, err := storage.InTenant(ctx, d.Worker, func(tx storage.Tx) (storage.Tenant, error) { return storage.ChangeTenant(ctx, tx, c) })
	stack.Must(t, err)
	return changed
}

// A charge that is not committed announces no warning.
func TestNoWarningOfWhatIsRolledBack(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 100)
	giveUp := errors.New("give up")
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		return errors.Join(tx.CreateUpload(ctx, storagetest.NewUpload(99)), giveUp)
	}), giveUp)
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, storagetest.NewUpload(101)) }), storage.ErrQuotaExceeded)
	if got := d.warnings(t, ctx); got != nil {
		t.Errorf("the tenant was warned at %v percent", got)
	}
}

// A tenant's own maximum holds for what it begins, also without saying how large that is.
func TestTenantsOwnMaximum(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	change := func(c storage.TenantChange) storage.Tenant {
		t.Helper()
		return d.change(t, ctx, c)
	}
	create := func(n storage.NewUpload) error {
		return d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
	}
	change(storage.TenantChange{MaxUploadBytes: new(int64(100)), MaxUploads: new(7)})
	stack.WantErr(t, create(storagetest.NewUpload(101)), storage.ErrTooLarge)
	stack.Must(t, create(storagetest.NewUpload(100)))

	deferred := storagetest.NewUpload(0)
	deferred.MaxSize = 500
	stack.Must(t, create(deferred))
	stack.Want(t, d.Upload(t, ctx, deferred.ID).ChargedBytes, 100, "charge of an upload of unknown size, which is the tenant's largest")
	declare := func(size int64) error {
		return d.API.InTenant(ctx, func(tx storage.Tx) error {
			return tx.DeclareLength(ctx, deferred.ID, storage.NoFence, size)
		})
	}
	stack.WantErr(t, declare(101), storage.ErrTooLarge)
	stack.Must(t, declare(40))
	d.WantRoom(t, ctx, 860)

	after := change(storage.TenantChange{MaxUploadBytes: new(int64(0)), QuotaBytes: new(int64(120))})
	if after.MaxUploadBytes != nil || *after.MaxUploads != 7 || after.ChargedBytes != 140 || after.Remaining() != 0 {
		t.Errorf("the tenant became %+v", after)
	}
	stack.WantErr(t, create(storagetest.NewUpload(1)), storage.ErrQuotaExceeded)
	change(storage.TenantChange{QuotaBytes: new(int64(2000))})
	stack.Must(t, create(storagetest.NewUpload(501)))
	nobody := storagetest.As(t.Context(), uuid.New())
	stack.WantErr(t, d.Worker.InTenant(nobody, func(tx storage.Tx) error {
		_, err := storage.ChangeTenant(nobody, tx, storage.TenantChange{})
		return err
	}), storage.ErrNotFound)
}
