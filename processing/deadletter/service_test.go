package deadletter_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A site is a [hookstest.Site] with dead letters.
type site struct{ *hookstest.Site }

func newSite(t *testing.T) *site {
	t.Helper()
	return &site{hookstest.New(t)}
}

func (s *site) deadLetters() *deadletter.Service {
	return &deadletter.Service{DB: s.API, Queue: s.Uploads.Queue, Uploaded: s.Uploads.Metrics.Into(storage.Uploaded), Log: s.Uploads.Log}
}

func (s *site) batches() *batch.Service {
	return &batch.Service{DB: s.API, Queue: s.Queue, Uploads: s.Uploads, Metrics: s.Uploads.Metrics, Log: s.Log}
}

func asRole(ctx context.Context, user string, role tenant.Role) context.Context {
	who, _ := tenant.From(ctx)
	who.User, who.Role = user, role
	return tenant.With(ctx, who)
}

// giveUp makes an upload, of a batch or of none, whose processing is given up at the step named, and returns it with its letter.
func (s *site) giveUp(t *testing.T, ctx context.Context, batch string) (upload uuid.UUID, letter deadletter.Letter) {
	t.Helper()
	admitted, err := s.Admission.Admit(ctx, hooks.Request{Size: 10, Metadata: map[string]string{"batch": batch}})
	stack.Must(t, err)
	id := admitted.ID
	key, sum := s.Store(t, ctx, id, hookstest.Content)
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum))
	s.Exec(t, `update river_job set state = 'discarded', attempt = 3, finalized_at = now() where state = 'available'`)
	s.MustWork(t, ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, id, 3); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into step_results (tenant_id, upload_id, done, results) values ($1, $2, '{scan}', '{}')`, tx.Tenant, id)
		if err != nil {
			return err
		}
		return processing.GiveUp(ctx, tx, id)
	})
	return id, s.letterOf(t, ctx, id)
}

func (s *site) letterOf(t *testing.T, ctx context.Context, upload uuid.UUID) deadletter.Letter {
	t.Helper()
	all, err := s.deadLetters().List(asRole(ctx, "root", tenant.Admin), deadletter.Page{Limit: 100})
	stack.Must(t, err)
	for _, d := range all {
		if d.Upload == upload {
			return d
		}
	}
	t.Fatalf("there is no letter of %s: %+v", upload, all)
	panic("unreachable")
}

func (s *site) jobs(t *testing.T, upload uuid.UUID) int {
	t.Helper()
	return s.Count(t, `select count(*) from river_job where state = 'available' and attempt = 0 and max_attempts = 3
		and args->>'upload_id' = $1`, upload.String())
}

// Dead letters are for admins whose token covers all projects.
func TestDeadLettersAreForAdmins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	_, letter := s.giveUp(t, ctx, "")
	d := s.deadLetters()
	narrow, _ := tenant.From(ctx)
	narrow.Role, narrow.Projects = tenant.Admin, []string{"default"}
	for name, in := range map[string]context.Context{
		"empleado": ctx, "constructora": asRole(ctx, "jefa", tenant.Constructora), "inversionista": asRole(ctx, "i", tenant.Inversionista),
		"narrowed admin": tenant.With(ctx, narrow),
	} {
		_, err := d.List(in, deadletter.Page{Limit: 1})
		_, errFind := d.Find(in, letter.ID)
		_, errRetry := d.Retry(in, letter.ID)
		for what, err := range map[string]error{"list": err, "find": errFind, "retry": errRetry, "discard": d.Discard(in, letter.ID)} {
			if !errors.Is(err, tenant.ErrForbidden) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	stack.Want(t, s.letterOf(t, ctx, letter.Upload).State, deadletter.Open, "state of the letter")
}

// Eight admins retry a letter at once: it is retried once, by one job with all its attempts. The results of steps are kept, the
// quota stays as it was, and the audit log has one entry.
func TestRetryOfADeadLetter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.giveUp(t, ctx, "")
	room := s.Room(t, ctx)
	admin := asRole(ctx, "root", tenant.Admin)
	d := s.deadLetters()
	var retried atomic.Int32
	g := new(errgroup.Group)
	for range 8 {
		g.Go(func() error {
			got, err := d.Retry(admin, letter.ID)
			if errors.Is(err, deadletter.ErrNothingToRetry) {
				return nil
			}
			if err == nil {
				retried.Add(1)
				if got.State != deadletter.Retried || *got.RetriedBy != "root" {
					err = errors.New("it is not marked")
				}
			}
			return err
		})
	}
	stack.Must(t, stack.Ended(t, "eight retries", g.Wait))
	if n := retried.Load(); n != 1 || s.jobs(t, upload) != 1 {
		t.Errorf("it was retried %d times, with %d jobs", n, s.jobs(t, upload))
	}
	if u := s.Upload(t, ctx, upload); u.Status != storage.Uploaded || u.FailureReason != nil {
		t.Errorf("got %+v", u)
	}
	s.WantCount(t, 1, `select count(*) from step_results where done = '{scan}'`)
	s.WantRoom(t, ctx, room)
	s.WantCount(t, 1, `select count(*) from audit where action = 'dead_letter.retry' and actor = 'root' and subject = $1
		and detail->>'dead_letter' = $2 and outcome = 'done'`, upload.String(), letter.ID.String())
	s.WantCount(t, 1, `select count(*) from timeline where upload_id = $1 and event = 'uploaded' and detail->>'retry' = 'true'`, upload)
}

// If the job cannot be enqueued, nothing is retried.
func TestRetryIsOneTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.giveUp(t, ctx, "")
	s.Exec(t, `revoke insert on river_job from tramo_api`)
	if _, err := s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID); err == nil {
		t.Error("it was retried")
	}
	if u := s.Upload(t, ctx, upload); u.Status != storage.Failed || s.letterOf(t, ctx, upload).State != deadletter.Open {
		t.Errorf("got %+v", u)
	}
	s.WantCount(t, 0, `select count(*) from audit`)
}

// When a manager retries the upload, its letter is marked as retried.
func TestRetryOfAnUploadMarksItsLetter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.giveUp(t, ctx, "")
	stack.Must(t, s.batches().RetryUpload(asRole(ctx, "jefa", tenant.Constructora), upload))
	if got := s.letterOf(t, ctx, upload); got.State != deadletter.Retried || *got.RetriedBy != "jefa" {
		t.Errorf("got %+v", got)
	}
	_, err := s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID)
	stack.WantErr(t, err, deadletter.ErrNothingToRetry)
	stack.Want(t, s.jobs(t, upload), 1, "number of jobs")
}

// A failed batch is open again while its dead letter is retried, and is announced again when it is completed.
func TestRetryOpensTheBatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.giveUp(t, ctx, "turno")
	announced := func(kind string) int { return s.Count(t, `select count(*) from announcements where type = $1`, kind) }
	if n := announced("batch.failed"); n != 1 {
		t.Fatalf("the batch was announced as failed %d times", n)
	}
	_, err := s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID)
	stack.Must(t, err)
	s.WantCount(t, 1, `select count(*) from batches where completed_at is null and not failed`)
	s.MustWork(t, ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, upload, 1); err != nil {
			return err
		}
		return tx.Complete(ctx, upload, storage.Results{})
	})
	if failed, completed := announced("batch.failed"), announced("batch.completed"); failed != 1 || completed != 1 {
		t.Errorf("it was announced %d times as failed and %d times as completed", failed, completed)
	}
}

// An upload that had all its bytes when its batch was cancelled is processed, also after a retry. The batch stays cancelled.
func TestRetryInACancelledBatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.giveUp(t, ctx, "turno")
	boss := asRole(ctx, "jefa", tenant.Constructora)
	_, err := s.batches().Cancel(boss, *s.Upload(t, ctx, upload).BatchID)
	stack.Must(t, err)
	_, err = s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID)
	stack.Must(t, err)
	stack.Want(t, s.jobs(t, upload), 1, "number of jobs")
	s.WantCount(t, 1, `select count(*) from batches where cancelled_at is not null`)
}

// Letters of deleted uploads, of another tenant and of no upload are not found. A letter whose upload has failed for another
// reason since, or was retried, has nothing to retry. A discarded letter can be retried. Discarding twice is audited once.
func TestWhatCannotBeRetried(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, other := s.NewTenant(t, 1000), s.NewTenant(t, 1000)
	admin, d := asRole(ctx, "root", tenant.Admin), s.deadLetters()
	deletedUpload, deleted := s.giveUp(t, ctx, "")
	stack.Must(t, s.Erasures.Delete(ctx, deletedUpload))
	_, foreign := s.giveUp(t, other, "")
	lost, otherwise := s.giveUp(t, ctx, "")
	s.Exec(t, `update uploads set failure_reason = 'lost' where id = '`+lost.String()+`'`)
	kept, discarded := s.giveUp(t, ctx, "")

	for name, id := range map[string]uuid.UUID{"deleted": deleted.ID, "foreign": foreign.ID, "unknown": uuid.New()} {
		_, err := d.Retry(admin, id)
		_, errFind := d.Find(admin, id)
		for _, err := range []error{err, errFind, d.Discard(admin, id)} {
			if !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// The workers' role, which sees deleted uploads, does not find it either.
	operator := *d
	operator.DB = s.Worker
	_, err := operator.Retry(admin, deleted.ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	for range 2 { // open, and discarded
		_, err = d.Retry(admin, otherwise.ID)
		stack.WantErr(t, err, deadletter.ErrNothingToRetry)
		stack.Must(t, d.Discard(admin, otherwise.ID))
	}

	for range 2 {
		stack.Must(t, d.Discard(admin, discarded.ID))
	}
	s.WantCount(t, 1, `select count(*) from audit where action = 'dead_letter.discard' and subject = $1`, kept.String())
	stack.Want(t, s.Upload(t, ctx, kept).Status, storage.Failed, "status")
	retried, left, err := d.RetryAll(admin, []uuid.UUID{discarded.ID, deleted.ID, otherwise.ID})
	stack.Must(t, err)
	if len(retried) != 1 || retried[0].ID != discarded.ID || len(left) != 2 || !errors.Is(left[0].Err, storage.ErrNotFound) ||
		!errors.Is(left[1].Err, deadletter.ErrNothingToRetry) {
		t.Errorf("retried %+v, left %+v", retried, left)
	}
	s.WantCount(t, 1, `select count(*) from river_job where state = 'available'`)
}
