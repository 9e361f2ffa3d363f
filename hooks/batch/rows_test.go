package batch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// newBatch makes a batch of the tenant in ctx, with n uploads of size bytes.
func (s *site) newBatch(t *testing.T, ctx context.Context, n int, size int64) (uuid.UUID, []uuid.UUID) {
	t.Helper()
	b := storage.NewBatch{ID: uuid.Must(uuid.NewV7()), Project: "torre", Name: "Torre, lunes", UserID: "ana"}
	s.Must(t, ctx, func(tx storage.Tx) error {
		_, _, err := tx.MakeBatch(ctx, b)
		return err
	})
	if n == 0 {
		return b.ID, nil
	}
	return b.ID, s.addTo(t, ctx, b.ID, n, size)
}

// addTo adds uploads with client ids of their own to a batch.
func (s *site) addTo(t *testing.T, ctx context.Context, batchID uuid.UUID, n int, size int64) (ids []uuid.UUID) {
	t.Helper()
	ns := make([]storage.NewUpload, n)
	for i := range ns {
		ns[i] = storagetest.NewUpload(size)
		ns[i].ClientID, ns[i].BatchID = ns[i].ID.String(), batchID
		ids = append(ids, ns[i].ID)
	}
	s.Must(t, ctx, func(tx storage.Tx) error {
		taken, err := tx.CreateUploads(ctx, batchID, ns)
		if err != nil || len(taken) > 0 {
			return fmt.Errorf("%v are taken: %w", taken, err)
		}
		return tx.OpenBatch(ctx, batchID)
	})
	return ids
}

func (s *site) readBatch(t *testing.T, ctx context.Context, id uuid.UUID) (b storage.Batch) {
	t.Helper()
	s.Must(t, ctx, func(tx storage.Tx) (err error) {
		b, err = batch.Find(ctx, tx, id)
		return err
	})
	return b
}

// announced returns the types of a batch's announcements, in order.
func (s *site) announced(t *testing.T, batchID uuid.UUID) []string {
	t.Helper()
	return storagetest.Column[string](t, s.Admin(t), `select type from announcements where batch_id = $1 order by created_at`, batchID)
}

// processed makes uploads that a worker has begun with.
func (s *site) processed(t *testing.T, ids []uuid.UUID) {
	t.Helper()
	s.Exec(t, `
		update uploads set status = 'processing', object_key = 'key', uploaded_at = now() where id = any($1)`, ids)
}

// atOnce runs do for each id, on as many connections as a pool has.
func atOnce(t *testing.T, ids []uuid.UUID, do func(i int, id uuid.UUID) error) {
	t.Helper()
	g := new(errgroup.Group)
	g.SetLimit(20)
	for i, id := range ids {
		g.Go(func() error { return do(i, id) })
	}
	stack.Must(t, stack.Ended(t, "changes at once", g.Wait))
}

// 2,000 uploads end together, by workers and by servers: their batch ends once and is announced once. So it does after
// those that failed were retried, and after more were added.
func TestBatchEndsOnce(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<40)
	batchID, ids := d.newBatch(t, ctx, 2000, 10)
	d.processed(t, ids[400:])
	broken := storage.Failure{Reason: storage.ReasonUnreadable, Detail: "x"}
	atOnce(t, ids, func(i int, id uuid.UUID) error {
		db, end := d.Worker, func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) }
		switch {
		case i < 200:
			db, end = d.API, func(tx storage.Tx) error { return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel}) }
		case i < 400:
			db, end = d.API, func(tx storage.Tx) error { return tx.Move(ctx, id, storage.MoveReject.Because(broken)) }
		case i%2 == 0:
			end = func(tx storage.Tx) error { return tx.Move(ctx, id, storage.MoveFail.Because(broken)) }
		}
		return db.InTenant(ctx, end)
	})
	if got := d.announced(t, batchID); !slices.Equal(got, []string{"batch.failed"}) {
		t.Fatalf("announced: %v", got)
	}
	stack.Want(t, d.readBatch(t, ctx, batchID).State, storage.BatchFailed, "state of the batch")

	var retried []uuid.UUID
	d.Must(t, ctx, func(tx storage.Tx) (err error) {
		us, err := storage.LockFailed(ctx, tx, batchID)
		if err != nil || len(us) != 1000 {
			return fmt.Errorf("%d ended badly: %w", len(us), err)
		}
		if retried, err = tx.Retry(ctx, ids); err != nil {
			return err
		}
		return tx.OpenBatch(ctx, batchID)
	})
	if len(retried) != 800 {
		t.Fatalf("%d were retried, not the 800 whose objects are there", len(retried))
	}
	stack.Want(t, d.readBatch(t, ctx, batchID).State, storage.BatchOpen, "state of the batch after the retry")
	d.processed(t, retried)
	atOnce(t, retried, func(_ int, id uuid.UUID) error {
		return d.Worker.InTenant(ctx, func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) })
	})
	if got := d.announced(t, batchID); len(got) != 2 {
		t.Fatalf("after a retry, announced: %v", got)
	}

	more := d.addTo(t, ctx, batchID, 50, 10)
	d.processed(t, more)
	atOnce(t, more, func(_ int, id uuid.UUID) error {
		return d.Worker.InTenant(ctx, func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) })
	})
	if got := d.announced(t, batchID); len(got) != 3 {
		t.Fatalf("after more were added, announced: %v", got)
	}
}

// Uploads are added to a batch, one by one and many at once, while others in it end: a reader never sees an ended batch with
// an unfinished upload in it. In the end the batch has ended, without a deadlock.
func TestBatchIsOpenedAndEndedAtOnce(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<40)
	batchID, _ := d.newBatch(t, ctx, 0, 10)
	g := new(errgroup.Group)
	for i := range 8 {
		g.Go(func() error {
			for n := range 25 {
				if err := d.addAndEnd(ctx, batchID, fmt.Sprintf("%d", (i+n)%4)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	watcher := d.Admin(t)
	for ended, deadline := false, time.Now().Add(stack.Patience); !ended; {
		if time.Now().After(deadline) {
			t.Fatal("uploads are still added and ended")
		}
		select {
		case err := <-done:
			stack.Must(t, err)
			ended = true
		default:
		}
		if wrong := storagetest.Column[uuid.UUID](t, watcher, `select b.id from batches b where completed_at is not null and exists (
			select from uploads u where u.batch_id = b.id and u.status in ('pending', 'uploading', 'uploaded', 'processing'))`); len(wrong) > 0 {
			t.Fatal("the batch has ended, and something in it has not")
		}
	}
	if b := d.readBatch(t, ctx, batchID); b.CompletedAt == nil {
		t.Error("everything has ended, and the batch has not")
	}
}

// The last upload of a batch ends while another is just being created in it, which began before and so does not see that
// the batch has ended. It is open again all the same.
func TestBatchEndsWhileOneIsAdded(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	batchID, ids := d.newBatch(t, ctx, 1, 10)
	d.processed(t, ids)
	holding, err := d.Admin(t).Begin(t.Context())
	stack.Must(t, err)
	_, err = holding.Exec(t.Context(), `select from tenants for no key update`)
	stack.Must(t, err)
	n := storagetest.NewUpload(10)
	n.BatchID = batchID
	created := make(chan error, 1)
	go func() { created <- d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) }) }()
	d.UntilLocked(t, "the creation waits", "%")
	d.MustWork(t, ctx, func(tx storage.Tx) error { return tx.Complete(ctx, ids[0], storage.Results{}) })
	if got := d.announced(t, batchID); len(got) != 1 {
		t.Fatalf("announced: %v", got)
	}
	stack.Must(t, holding.Commit(t.Context()))
	stack.Must(t, stack.Receive(t, "creation", created))
	stack.Want(t, d.readBatch(t, ctx, batchID).State, storage.BatchOpen, "state of the batch, with an upload in it that has not ended")
}

// addAndEnd makes an upload in the batch under a client id that others use at the same time, and ends it.
func (s *site) addAndEnd(ctx context.Context, batchID uuid.UUID, clientID string) error {
	n := storagetest.NewUpload(10)
	n.ClientID, n.BatchID = clientID, batchID
	err := s.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
	if errors.Is(err, storage.ErrDuplicateClientID) {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.MarkUploaded(ctx, n.ID, "key", nil)
		return err
	})
	if err != nil {
		return err
	}
	return s.Worker.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, n.ID, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonUnreadable}))
	})
}

// Manifests and cancellations of the same batch at once neither deadlock nor lose quota.
func TestCancelBatchAndAddAtOnce(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<40)
	for range 10 {
		batchID, ids := d.newBatch(t, ctx, 20, 10)
		g := new(errgroup.Group)
		for i := range 4 {
			g.Go(func() error {
				return d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.Move(ctx, ids[i], storage.Transition{Move: storage.MoveCancel}) })
			})
			g.Go(func() error {
				n := storagetest.NewUpload(10)
				n.BatchID = batchID
				return d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
			})
			g.Go(func() error {
				return d.API.InTenant(ctx, func(tx storage.Tx) error {
					_, err := batch.CancelIn(ctx, tx, batchID)
					return err
				})
			})
		}
		if err := stack.Ended(t, "cancellations and creations", g.Wait); err != nil && !errors.Is(err, storage.ErrBatchCancelled) && !errors.Is(err, storage.ErrWrongStatus) {
			t.Fatal(err)
		}
		stack.Want(t, d.readBatch(t, ctx, batchID).State, storage.BatchCancelled, "state of the batch")
		if got := d.announced(t, batchID); len(got) != 0 {
			t.Errorf("announced: %v", got)
		}
	}
	d.WantRoom(t, ctx, 1<<40)
}

// A manifest is charged as a whole: if the quota has no room for all of it, no upload is created.
func TestManifestAndQuota(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1000)
	batchID, _ := d.newBatch(t, ctx, 9, 100)
	ns := []storage.NewUpload{storagetest.NewUpload(50), storagetest.NewUpload(51)}
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.CreateUploads(ctx, batchID, ns)
		return err
	}), storage.ErrQuotaExceeded)
	d.addTo(t, ctx, batchID, 2, 50)
	d.WantRoom(t, ctx, 0)
	d.WantCount(t, 11, `select count(*) from uploads`)
}

// An upload that was sent again counts as the later upload.
func TestSentAgain(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	batchID, ids := d.newBatch(t, ctx, 2, 10)
	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, ids[0], storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch, Detail: "x"}))
	})
	again := storagetest.NewUpload(10)
	again.ClientID, again.BatchID = ids[0].String(), batchID
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, again) })
	d.processed(t, []uuid.UUID{ids[1], again.ID})
	for _, id := range []uuid.UUID{ids[1], again.ID} {
		d.MustWork(t, ctx, func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) })
	}
	stack.Want(t, d.announced(t, batchID), []string{"batch.completed"}, "announcements")
	d.Must(t, ctx, func(tx storage.Tx) error {
		totals, err := batch.Totals(ctx, tx, batchID)
		if n := totals[batchID].ByStatus; n[storage.Completed] != 2 || n[storage.Failed] != 0 {
			t.Errorf("counts are %v", n)
		}
		us, err2 := storage.LockFailed(ctx, tx, batchID)
		if len(us) != 0 {
			t.Errorf("there is %v to be retried", us)
		}
		return errors.Join(err, err2)
	})
	// An object that is lost afterwards makes the batch failed. It is not announced again.
	d.MustWork(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, again.ID, storage.MoveLose.Because(storage.Failure{Reason: storage.ReasonLost}))
	})
	stack.Want(t, d.readBatch(t, ctx, batchID).State, storage.BatchFailed, "state of the batch with a lost object")
	if got := d.announced(t, batchID); len(got) != 1 {
		t.Errorf("announced: %v", got)
	}
}

// The process that ends the last upload dies before its commit: neither the upload nor the batch has ended, and nothing is
// announced. The next attempt does all of it.
func TestBatchEndsWithItsLastUpload(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	batchID, ids := d.newBatch(t, ctx, 1, 10)
	d.processed(t, ids)
	end := func(then func(storage.Tx)) error {
		return d.Worker.InTenant(ctx, func(tx storage.Tx) error {
			stack.Must(t, tx.Complete(ctx, ids[0], storage.Results{}))
			then(tx)
			return nil
		})
	}
	err := end(func(tx storage.Tx) {
		d.Exec(t, `select pg_terminate_backend($1)`, tx.Conn().PgConn().PID())
	})
	if err == nil {
		t.Fatal("it was committed by nobody")
	}
	if u, b := d.Upload(t, ctx, ids[0]), d.readBatch(t, ctx, batchID); u.Status != storage.Processing || b.State != storage.BatchOpen || len(d.announced(t, batchID)) != 0 {
		t.Errorf("the upload is %s, the batch %s", u.Status, b.State)
	}
	stack.Must(t, end(func(storage.Tx) {}))
	if b := d.readBatch(t, ctx, batchID); b.State != storage.BatchCompleted || len(d.announced(t, batchID)) != 1 {
		t.Errorf("the batch is %s", b.State)
	}
}

// A batch whose uploads were all cancelled stays open, as an empty one does.
func TestBatchOfCancelledUploads(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	batchID, ids := d.newBatch(t, ctx, 1, 10)
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.Move(ctx, ids[0], storage.Transition{Move: storage.MoveCancel}) })
	if s := d.readBatch(t, ctx, batchID).State; s != storage.BatchOpen || len(d.announced(t, batchID)) != 0 {
		t.Errorf("the batch is %s", s)
	}
}

// Batches are those of a token's projects, and for an investor those that are completed; what is in them, too.
func TestBatchesAreNarrowed(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	batchID, ids := d.newBatch(t, ctx, 2, 10)
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	with := func(role tenant.Role, projects ...string) context.Context {
		return tenant.With(ctx, tenant.Identity{Tenant: who.Tenant, User: "eva", Role: role, Projects: projects})
	}
	investor := with(tenant.Inversionista)
	sees := func(ctx context.Context) bool {
		err := d.API.InTenant(ctx, func(tx storage.Tx) error {
			_, err := batch.Find(ctx, tx, batchID)
			return err
		})
		if err != nil {
			stack.WantErr(t, err, storage.ErrNotFound)
		}
		return err == nil
	}
	if !sees(with(tenant.Empleado, "torre")) || sees(with(tenant.Constructora, "puente")) || sees(investor) {
		t.Error("who sees an open batch of torre is wrong")
	}
	d.processed(t, ids)
	d.MustWork(t, ctx, func(tx storage.Tx) error { return tx.Complete(ctx, ids[0], storage.Results{}) })
	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, ids[1], storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonUnreadable}))
	})
	if sees(investor) {
		t.Error("an investor sees a batch that failed")
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		_, err := tx.Retry(ctx, ids[1:])
		return errors.Join(err, tx.OpenBatch(ctx, batchID), tx.Move(ctx, d.addToIn(t, tx, ctx, batchID), storage.Transition{Move: storage.MoveCancel}))
	})
	d.processed(t, ids[1:])
	d.MustWork(t, ctx, func(tx storage.Tx) error { return tx.Complete(ctx, ids[1], storage.Results{}) })
	if !sees(investor) {
		t.Fatal("an investor does not see a completed batch")
	}
	d.Must(t, investor, func(tx storage.Tx) error {
		totals, err := batch.Totals(ctx, tx, batchID)
		if n := totals[batchID].ByStatus; n[storage.Completed] != 2 || len(n) != 1 {
			t.Errorf("an investor is told of %v", n)
		}
		return err
	})
	if err := d.API.InTenant(with(tenant.Empleado, "puente"), func(tx storage.Tx) error {
		_, _, err := tx.MakeBatch(ctx, storage.NewBatch{ID: uuid.Must(uuid.NewV7()), Project: "torre", Name: "x", UserID: "eva"})
		return err
	}); storagetest.SQLState(err) != "42501" {
		t.Errorf("a batch of a project that the token does not cover: %v", err)
	}
}

// addToIn adds an upload to a batch within a transaction.
func (*site) addToIn(t *testing.T, tx storage.Tx, ctx context.Context, batchID uuid.UUID) uuid.UUID {
	t.Helper()
	n := storagetest.NewUpload(10)
	n.BatchID = batchID
	stack.Must(t, tx.CreateUpload(ctx, n))
	return n.ID
}

// The statements that run for each upload of a batch read no more rows than they need.
func TestBatchesUseTheirIndexes(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<40)
	for range 5 {
		_, ids := d.newBatch(t, ctx, 2000, 1)
		d.processed(t, ids[10:])
	}
	admin := d.Admin(t)
	_, err := admin.Exec(t.Context(), `analyze uploads; analyze batches`)
	stack.Must(t, err)
	batchID := storagetest.Column[uuid.UUID](t, admin, `select id from batches limit 1`)[0]
	for sql, index := range map[string]string{
		`select exists (select from uploads where tenant_id = $1 and batch_id = $2 and status in ('pending', 'uploading', 'uploaded', 'processing'))`: "uploads_batch_unfinished",
		`select status, count(*) from uploads where tenant_id = $1 and batch_id = $2 and replaced_by is null group by status`:                         "uploads_batch",
		`select id from uploads where tenant_id = $1 and batch_id = $2 and client_id = 'x'`:                                                           "uploads_batch_client",
	} {
		var plan []string
		d.Must(t, ctx, func(tx storage.Tx) error {
			rows, err := tx.Query(ctx, "explain "+sql, tx.Tenant, batchID)
			if err != nil {
				return err
			}
			plan, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		if all := strings.Join(plan, "\n"); !strings.Contains(all, index) || strings.Contains(all, "Seq Scan on uploads") {
			t.Errorf("%s is read so:\n%s", sql, all)
		}
	}
}

// A batch is listed by project, state and day, and tells what is stuck and what failed.
func TestBatchPagesAndTrouble(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	open, ids := d.newBatch(t, ctx, 3, 10)
	ended, more := d.newBatch(t, ctx, 1, 10)
	d.processed(t, more)
	d.MustWork(t, ctx, func(tx storage.Tx) error { return tx.Complete(ctx, more[0], storage.Results{}) })
	d.Exec(t, `
		with c as (update contents set received = 4, touched_at = now() - interval '10 minutes' where upload_id = $1)
		update uploads set status = 'uploading' where id = $1`, ids[1])
	d.Exec(t, `update contents set touched_at = now() - interval '20 minutes' where upload_id = $1`, ids[0])
	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, ids[2], storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch, Detail: "x"}))
	})
	day := d.readBatch(t, ctx, open).CreatedAt.Truncate(24 * time.Hour)
	list := func(p batch.Page) (found []uuid.UUID) {
		p.Limit = 10
		d.Must(t, ctx, func(tx storage.Tx) error {
			bs, err := batch.List(ctx, tx, p)
			for _, b := range bs {
				found = append(found, b.ID)
			}
			return err
		})
		return found
	}
	for _, c := range []struct {
		page batch.Page
		want []uuid.UUID
	}{
		{batch.Page{}, []uuid.UUID{ended, open}},
		{batch.Page{Before: ended}, []uuid.UUID{open}},
		{batch.Page{State: storage.BatchCompleted}, []uuid.UUID{ended}},
		{batch.Page{State: storage.BatchOpen}, []uuid.UUID{open}},
		{batch.Page{State: storage.BatchFailed}, nil},
		{batch.Page{State: storage.BatchCancelled}, nil},
		{batch.Page{Project: "puente"}, nil},
		{batch.Page{From: day, To: day.Add(24 * time.Hour)}, []uuid.UUID{ended, open}},
		{batch.Page{From: day.Add(24 * time.Hour)}, nil},
		{batch.Page{To: day}, nil},
	} {
		stack.Want(t, list(c.page), c.want, "%+v", c.page)
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		stuck, n, err := batch.Stuck(ctx, tx, open, 5*time.Minute, 1)
		if err != nil || n != 2 || stuck[0].ID != ids[1] { // the upload that had begun is first
			t.Errorf("%d are stuck: %v, %v", n, stuck, err)
		}
		failed, n, err := batch.Failed(ctx, tx, open, 10)
		if err != nil || n != 1 || failed[0].ID != ids[2] {
			t.Errorf("%d failed: %v, %v", n, failed, err)
		}
		totals, err := batch.Totals(ctx, tx, open, ended)
		if o, e := totals[open], totals[ended]; o.Expected != 30 || o.Received != 4 || o.Safe != 0 || e.Safe != 10 || o.ByStatus[storage.Pending] != 1 {
			t.Errorf("totals are %+v and %+v", o, e)
		}
		return err
	})
}
