package hooks_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

func (s *site) deadLetters() *deadletter.Service {
	return &deadletter.Service{DB: s.API, Queue: s.uploads.Queue, Uploaded: s.uploads.Metrics.Into(storage.Uploaded), Log: s.uploads.Log}
}

func (s *site) batches() *batch.Service {
	return &batch.Service{DB: s.API, Queue: s.Queue, Metrics: s.uploads.Metrics, Log: s.Log}
}

func asRole(ctx context.Context, user string, role tenant.Role) context.Context {
	who, _ := tenant.From(ctx)
	who.User, who.Role = user, role
	return tenant.With(ctx, who)
}

// die makes an upload, of a batch or of none, whose processing is given up at the step named, and returns it with its letter.
func (s *site) die(t *testing.T, ctx context.Context, batch string) (upload uuid.UUID, letter deadletter.Letter) {
	t.Helper()
	a, err := s.admission.Admit(ctx, hooks.Request{Size: 10, Metadata: map[string]string{"batch": batch}})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, 10))
	must(t, s.uploads.Record(ctx, a.ID, key, sum))
	s.exec(t, `update river_job set state = 'discarded', attempt = 3, finalized_at = now() where state = 'available'`)
	must(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, a.ID, 3); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into step_results (tenant_id, upload_id, done, results) values ($1, $2, '{scan}', '{}')`, tx.Tenant, a.ID)
		if err != nil {
			return err
		}
		return processing.GiveUp(ctx, tx, a.ID)
	}))
	return a.ID, s.letterOf(t, ctx, a.ID)
}

func (s *site) letterOf(t *testing.T, ctx context.Context, upload uuid.UUID) deadletter.Letter {
	t.Helper()
	all, err := s.deadLetters().List(asRole(ctx, "root", tenant.Admin), deadletter.Page{Limit: 100})
	must(t, err)
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
	return s.count(t, `select count(*) from river_job where state = 'available' and attempt = 0 and max_attempts = 3
		and args->>'upload_id' = $1`, upload.String())
}

// Dead letters are for admins whose token covers all projects.
func TestDeadLettersAreForAdmins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	_, letter := s.die(t, ctx, "")
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
	if got := s.letterOf(t, ctx, letter.Upload); got.State != deadletter.Open {
		t.Errorf("got %+v", got)
	}
}

// A letter that many retry at once is retried once: one job with fresh attempts, what is done stays done, the quota stays as it
// was, and the audit log has it once.
func TestRetryOfADeadLetter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.die(t, ctx, "")
	room := s.room(t, ctx)
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
	must(t, g.Wait())
	if n := retried.Load(); n != 1 || s.jobs(t, upload) != 1 {
		t.Errorf("it was retried %d times, with %d jobs", n, s.jobs(t, upload))
	}
	if u := s.upload(t, ctx, upload); u.Status != storage.Uploaded || u.FailureReason != nil {
		t.Errorf("got %+v", u)
	}
	if n := s.count(t, `select count(*) from step_results where done = '{scan}'`); n != 1 {
		t.Error("what was done is forgotten")
	}
	if got := s.room(t, ctx); got != room {
		t.Errorf("%d bytes are left, want %d", got, room)
	}
	if n := s.count(t, `select count(*) from audit where action = 'dead_letter.retry' and actor = 'root' and subject = $1
		and detail->>'dead_letter' = $2 and outcome = 'done'`, upload.String(), letter.ID.String()); n != 1 {
		t.Errorf("the audit log has it %d times", n)
	}
	if n := s.count(t, `select count(*) from timeline where upload_id = $1 and event = 'uploaded' and detail->>'retry' = 'true'`, upload); n != 1 {
		t.Errorf("the timeline has it %d times", n)
	}
}

// The job cannot be enqueued: nothing is retried.
func TestRetryIsOneTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.die(t, ctx, "")
	s.exec(t, `revoke insert on river_job from tramo_api`)
	if _, err := s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID); err == nil {
		t.Error("it was retried")
	}
	if u := s.upload(t, ctx, upload); u.Status != storage.Failed || s.letterOf(t, ctx, upload).State != deadletter.Open {
		t.Errorf("got %+v", u)
	}
	if n := s.count(t, `select count(*) from audit`); n != 0 {
		t.Errorf("the audit log has %d entries", n)
	}
}

// A manager that retries the upload answers its letter, too.
func TestRetryOfAnUploadAnswersItsLetter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.die(t, ctx, "")
	must(t, s.batches().RetryUpload(asRole(ctx, "jefa", tenant.Constructora), upload))
	if got := s.letterOf(t, ctx, upload); got.State != deadletter.Retried || *got.RetriedBy != "jefa" {
		t.Errorf("got %+v", got)
	}
	_, err := s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID)
	wantErr(t, err, deadletter.ErrNothingToRetry)
	if n := s.jobs(t, upload); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
}

// A batch that ended badly is open again while its dead letter is retried, and is told of once more when it has ended well.
func TestRetryOpensTheBatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.die(t, ctx, "turno")
	told := func(kind string) int { return s.count(t, `select count(*) from announcements where type = $1`, kind) }
	if told("batch.failed") != 1 {
		t.Fatalf("the batch was told of as failed %d times", told("batch.failed"))
	}
	_, err := s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID)
	must(t, err)
	if n := s.count(t, `select count(*) from batches where completed_at is null and not failed`); n != 1 {
		t.Error("the batch is not open")
	}
	must(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, upload, 1); err != nil {
			return err
		}
		return tx.Complete(ctx, upload, storage.Results{})
	}))
	if told("batch.failed") != 1 || told("batch.completed") != 1 {
		t.Errorf("told: %d failed, %d completed", told("batch.failed"), told("batch.completed"))
	}
}

// What was safe when its batch was cancelled is processed all the same, also after a retry; the batch stays cancelled.
func TestRetryInACancelledBatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	upload, letter := s.die(t, ctx, "turno")
	boss := asRole(ctx, "jefa", tenant.Constructora)
	_, err := s.batches().Cancel(boss, *s.upload(t, ctx, upload).BatchID)
	must(t, err)
	_, err = s.deadLetters().Retry(asRole(ctx, "root", tenant.Admin), letter.ID)
	must(t, err)
	if n := s.jobs(t, upload); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
	if n := s.count(t, `select count(*) from batches where cancelled_at is not null`); n != 1 {
		t.Error("the batch is not cancelled any more")
	}
}

// Letters of what is deleted, of another tenant and of nobody do not exist; one whose upload failed of something else since, or
// was retried, has nothing to retry. A discarded one can still be retried. Discarding twice is once.
func TestWhatCannotBeRetried(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, other := s.NewTenant(t, 1000), s.NewTenant(t, 1000)
	admin, d := asRole(ctx, "root", tenant.Admin), s.deadLetters()
	deletedUpload, deleted := s.die(t, ctx, "")
	must(t, s.Erasures.Delete(ctx, deletedUpload))
	_, foreign := s.die(t, other, "")
	lost, otherwise := s.die(t, ctx, "")
	s.exec(t, `update uploads set failure_reason = 'lost' where id = '`+lost.String()+`'`)
	kept, discarded := s.die(t, ctx, "")

	for name, id := range map[string]uuid.UUID{"deleted": deleted.ID, "foreign": foreign.ID, "unknown": uuid.New()} {
		_, err := d.Retry(admin, id)
		_, errFind := d.Find(admin, id)
		for _, err := range []error{err, errFind, d.Discard(admin, id)} {
			if !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// An operator's login, which sees what is deleted, does no more.
	operator := *d
	operator.DB = s.Worker
	_, err := operator.Retry(admin, deleted.ID)
	wantErr(t, err, storage.ErrNotFound)
	for range 2 { // open, and discarded
		_, err = d.Retry(admin, otherwise.ID)
		wantErr(t, err, deadletter.ErrNothingToRetry)
		must(t, d.Discard(admin, otherwise.ID))
	}

	for range 2 {
		must(t, d.Discard(admin, discarded.ID))
	}
	if n := s.count(t, `select count(*) from audit where action = 'dead_letter.discard' and subject = $1`, kept.String()); n != 1 {
		t.Errorf("the audit log has it %d times", n)
	}
	if u := s.upload(t, ctx, kept); u.Status != storage.Failed {
		t.Errorf("got %+v", u)
	}
	retried, left, err := d.RetryAll(admin, []uuid.UUID{discarded.ID, deleted.ID, otherwise.ID})
	must(t, err)
	if len(retried) != 1 || retried[0].ID != discarded.ID || len(left) != 2 || !errors.Is(left[0].Err, storage.ErrNotFound) ||
		!errors.Is(left[1].Err, deadletter.ErrNothingToRetry) {
		t.Errorf("retried %+v, left %+v", retried, left)
	}
	if n := s.count(t, `select count(*) from river_job where state = 'available'`); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
}
