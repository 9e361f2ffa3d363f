package storage_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// An upload that ends stays charged if its rows name bytes in S3, or somebody has its lease, and is refunded once, when they are
// gone. One of which S3 has nothing is refunded when it ends.
func TestRefundFollowsTheBytes(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	for name, c := range map[string]struct {
		before string // is done with the upload $1 of the tenant $2
		stays  bool
	}{
		"nothing":               {`update contents set touched_at = now() where upload_id = $1 and tenant_id = $2`, false},
		"a tail":                {`with c as (update contents set received = 3, tail_size = 3 where upload_id = $1) insert into tails values ($2, $1, 0, 'abc')`, false},
		"a multipart upload":    {`update contents set object_key = 'k', multipart_id = 'm' where upload_id = $1 and tenant_id = $2`, true},
		"an object":             {`update contents set object_key = 'k', stored = true where upload_id = $1 and tenant_id = $2`, true},
		"a holder that is gone": {leaseOf + `now() - interval '1 hour'` + leaseEnd, true},
		"a holder":              {leaseOf + `now() + interval '1 hour'` + leaseEnd, true},
	} {
		for _, move := range []storage.Move{storage.MoveCancel, storage.MoveExpire, storage.MoveReject} {
			id := d.Create(t, ctx, 100)
			d.Exec(t, c.before, id, storagetest.TenantOf(t, ctx))
			transition := storage.Transition{Move: move}
			if move == storage.MoveReject {
				transition = move.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch})
			}
			d.Must(t, ctx, func(tx storage.Tx) error { return tx.Move(ctx, id, transition) })
			left := int64(1000)
			if c.stays {
				left = 900
			}
			if room := d.Room(t, ctx); room != left {
				t.Errorf("%s, %s: the quota has %d bytes left, want %d", name, move, room, left)
			}
			d.WantCount(t, 0, `select count(*) from tails`)
			for i := range 2 {
				n := d.release(t, ctx, id)
				if want := map[bool]int{true: 1}[c.stays && i == 0]; n != want {
					t.Errorf("%s, %s: %d were released, want %d", name, move, n, want)
				}
				d.WantRoom(t, ctx, 1000)
			}
			d.WantCount(t, 0, `select count(*) from contents where object_key is not null`)
		}
	}
}

const (
	leaseOf  = `with me as (insert into lease_holders (id, replica, expires_at) values (gen_random_uuid(), 'r', `
	leaseEnd = `) returning id) insert into upload_leases (tenant_id, upload_id, holder_id, fence) select $2, $1, id, nextval('fences') from me`
)

func (d *database) release(t *testing.T, ctx context.Context, id uuid.UUID) (n int) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) (err error) {
		n, err = storage.Release(ctx, tx, []uuid.UUID{id})
		return err
	})
	return n
}

// Somebody takes the first lease of an upload while it is cancelled: the cancellation waits for that, and sees it. What the
// holder stores is charged.
func TestRefundSeesALeaseTakenMeanwhile(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 100)
	taking, err := d.Admin(t).Begin(t.Context())
	stack.Must(t, err)
	_, err = taking.Exec(t.Context(), leaseOf+`now() + interval '1 hour'`+leaseEnd, id, storagetest.TenantOf(t, ctx))
	stack.Must(t, err)
	ended := make(chan error, 1)
	go func() {
		ended <- d.API.InTenant(ctx, func(tx storage.Tx) error {
			return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel})
		})
	}()
	d.UntilLocked(t, "the cancellation waits", "%")
	stack.Must(t, taking.Commit(t.Context()))
	stack.Must(t, stack.Receive(t, "end of the cancellation", ended))
	d.WantRoom(t, ctx, 900)
	stack.Want(t, d.release(t, ctx, id), 1, "released uploads")
	d.WantRoom(t, ctx, 1000)
}

// The partial uploads that a final one had taken are free once S3 has nothing more of the final one, and not before: of their
// bytes S3 has no third copy.
func TestPartialsAreFreeAfterTheRefund(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	partial := d.Create(t, ctx, 100)
	d.Exec(t, `update uploads set kind = 'partial', status = 'uploading', uploaded_at = now() where id = $1`, partial)
	n := storagetest.NewUpload(100)
	n.Kind, n.Partials = storage.Final, []uuid.UUID{partial}
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
	d.Exec(t, `update contents set object_key = 'k', multipart_id = 'm' where upload_id = $1`, n.ID)
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.Move(ctx, n.ID, storage.Transition{Move: storage.MoveCancel}) })
	if u := d.Upload(t, ctx, partial); u.FinalID == nil {
		t.Error("S3 has a copy of the partial upload, and it is free")
	}
	d.release(t, ctx, n.ID)
	if u := d.Upload(t, ctx, partial); u.FinalID != nil || u.ChargedBytes != 100 {
		t.Errorf("it is not free, or charged %d", u.ChargedBytes)
	}
}
