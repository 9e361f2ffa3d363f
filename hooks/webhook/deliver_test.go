package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

const (
	allDelivered = `select count(*) = $1 from webhook_deliveries where state = 'delivered'`
	anyDead      = `select exists (select from webhook_deliveries where state = 'dead')`
)

// An announcement reaches the endpoint that wants it, signed so that the specification's library accepts it, once, within
// about a second; one with other wishes, one of another tenant, and one that came later are not told.
func TestDelivered(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	wants, other, later, stranger := newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	_, secret := s.endpoint(t, s.ctx, wants.URL+"/in?token=1", storage.AnnounceQuotaWarning)
	s.endpoint(t, s.ctx, other.URL, storage.AnnounceUploadFailed)
	s.endpoint(t, s.newTenant(t), stranger.URL)
	s.announce(t, s.ctx, 1)
	s.endpoint(t, s.ctx, later.URL)
	start := time.Now()
	s.start(t)
	c := wants.next(t)
	t.Logf("arrived %s after the worker began", time.Since(start))
	c.verify(t, secret)
	if err := c.verifies(t, newSecret()); err == nil {
		t.Error("another secret's signature is accepted")
	}
	var m struct {
		Type      string
		Timestamp time.Time
		Data      map[string]any
	}
	stack.Must(t, json.Unmarshal(c.body, &m))
	if m.Type != "quota.warning" || time.Since(m.Timestamp) > time.Minute || fmt.Sprint(m.Data) != "map[percent:0]" {
		t.Errorf("payload is %s", c.body)
	}
	if got := c.header.Get("User-Agent"); got != "Tramo-Webhooks" {
		t.Errorf("User-Agent is %q", got)
	}
	s.await(t, allDelivered, 1)
	for _, r := range []*receiver{wants, other, later, stranger} {
		r.none(t)
	}
	s.WantCount(t, 1, `select count(*) from webhook_deliveries`)
}

// While the overlap lasts, receivers that know either secret accept; afterwards, or without one, only the new one is good.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	id, old := s.endpoint(t, s.ctx, r.URL)
	s.start(t)
	_, current, err := s.endpoints.Rotate(s.ctx, id, time.Hour)
	stack.Must(t, err)
	s.announce(t, s.ctx, 1)
	c := r.next(t)
	c.verify(t, old)
	c.verify(t, current)
	_, newest, err := s.endpoints.Rotate(s.ctx, id, 0)
	stack.Must(t, err)
	s.announce(t, s.ctx, 1)
	c = r.next(t)
	c.verify(t, newest)
	for name, secret := range map[string]string{"first": old, "second": current} {
		if c.verifies(t, secret) == nil {
			t.Errorf("the %s secret still signs", name)
		}
	}
}

// A receiver that is down is tried again, under the same id, and what it missed arrives once it is up.
func TestDownThenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	r.answers(status(http.StatusInternalServerError))
	id, secret := s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 1)
	s.start(t)
	first := r.next(t)
	s.await(t, `select failing_since is not null from webhook_endpoints where id = $1`, id)
	s.await(t, `select attempts = 1 and state = 'pending' and last_status = 500 and last_error = 'status'
		and next_attempt_at between now() and now() + interval '7 seconds' from webhook_deliveries`)
	r.answers(nil)
	second := r.next(t) // by itself, five seconds later
	second.verify(t, secret)
	if first.id() != second.id() || first.header.Get("Webhook-Timestamp") == second.header.Get("Webhook-Timestamp") {
		t.Errorf("ids are %s and %s, timestamps %s and %s", first.id(), second.id(),
			first.header.Get("Webhook-Timestamp"), second.header.Get("Webhook-Timestamp"))
	}
	s.await(t, `select state = 'delivered' and attempts = 2 from webhook_deliveries`)
	s.await(t, `select failing_since is null from webhook_endpoints where id = $1`, id)
}

// Two workers under a burst: each announcement arrives at each endpoint exactly once, and no job is there twice.
func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	const burst = 300
	s := newSite(t)
	a, b := newReceiver(t), newReceiver(t)
	s.endpoint(t, s.ctx, a.URL)
	s.endpoint(t, s.ctx, b.URL)
	s.start(t)
	s.start(t)
	start := time.Now()
	s.announce(t, s.ctx, burst)
	s.await(t, allDelivered, 2*burst)
	t.Logf("%d deliveries in %s", 2*burst, time.Since(start))
	for name, r := range map[string]*receiver{"a": a, "b": b} {
		seen := map[string]int{}
		for range burst {
			seen[r.next(t).id()]++
		}
		r.none(t)
		if len(seen) != burst {
			t.Errorf("%s saw %d announcements", name, len(seen))
		}
	}
	s.WantCount(t, 2*burst, `select count(*) from river_job`)
}

// Nine endpoints of one tenant that answer nothing, with a backlog, do not hold up another tenant's, not even by the time
// that they are given to answer: they have eight slots each, of a worker's.
func TestSlowEndpointsHoldUpNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.conf.Timeout = stack.Patience
	slow, quick := newReceiver(t), newReceiver(t)
	slow.answers(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	for range 9 {
		s.endpoint(t, s.ctx, slow.URL)
	}
	other := s.newTenant(t)
	s.endpoint(t, other, quick.URL)
	s.announce(t, s.ctx, 100)
	s.start(t)
	for range 9 * window {
		slow.next(t)
	}
	start := time.Now()
	s.announce(t, other, 1)
	quick.next(t)
	took := time.Since(start)
	t.Logf("behind nine that hang, another tenant's webhook took %s", took)
	if took > s.conf.Timeout/2 {
		t.Errorf("it took %s", took)
	}
	slow.none(t)
	s.WantCount(t, 9*window, `select count(*) from webhook_deliveries where tenant_id = $1 and job_id is not null`, storagetest.TenantOf(t, s.ctx))
}

// An endpoint that is deleted, or disabled, while an attempt is under way gets no other, and nothing breaks.
func TestDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	release := make(chan struct{})
	r.answers(func(w http.ResponseWriter, q *http.Request) {
		select {
		case <-release:
		case <-q.Context().Done(): // the test has failed
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	deleted, _ := s.endpoint(t, s.ctx, r.URL)
	disabled, _ := s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 1)
	s.start(t)
	r.next(t)
	r.next(t)
	stack.Must(t, s.endpoints.Delete(s.ctx, deleted))
	_, err := s.endpoints.Update(s.ctx, disabled, Change{Enabled: new(false)})
	stack.Must(t, err)
	close(release)
	s.await(t, `select count(*) = 2 from river_job where state = 'completed'`)
	s.WantCount(t, 1, `select count(*) from webhook_deliveries where state = 'dead' and last_error = 'endpoint_disabled'`)
	s.WantCount(t, 1, `select count(*) from webhook_secrets`)
	r.none(t)
}

// 410 disables the endpoint at once, which the audit log and the tenant's other endpoints are told.
func TestGone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	gone, other := newReceiver(t), newReceiver(t)
	gone.answers(status(http.StatusGone))
	id, _ := s.endpoint(t, s.ctx, gone.URL)
	_, secret := s.endpoint(t, s.ctx, other.URL, storage.AnnounceWebhookDisabled)
	s.announce(t, s.ctx, 1)
	s.start(t)
	gone.next(t)
	c := other.next(t)
	c.verify(t, secret)
	if !strings.Contains(string(c.body), `"data":{"endpoint_id":"`+id.String()+`","reason":"gone"}`) {
		t.Errorf("the other is told %s", c.body)
	}
	s.await(t, `select disabled_reason = 'gone' from webhook_endpoints where id = $1`, id)
	s.WantCount(t, 1, `select count(*) from audit where action = 'webhook.disable' and subject = $1`, id.String())
	s.announce(t, s.ctx, 1)
	s.await(t, `select not exists (select from announcements where dispatched_at is null)`)
	gone.none(t)
}

// An endpoint of which no attempt succeeded for five days is disabled by the next that fails; one that failed for less
// is not.
func TestFailingForDays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	r.answers(status(http.StatusBadGateway))
	old, _ := s.endpoint(t, s.ctx, r.URL)
	young, _ := s.endpoint(t, s.ctx, r.URL)
	s.exec(t, `update webhook_endpoints set failing_since = now() - interval '5 days 1 minute' where id = $1`, old)
	s.exec(t, `update webhook_endpoints set failing_since = now() - interval '4 days 23 hours' where id = $1`, young)
	s.announce(t, s.ctx, 1)
	s.start(t)
	s.await(t, `select disabled_reason = 'failing' from webhook_endpoints where id = $1`, old)
	s.await(t, `select attempts = 1 and state = 'pending' from webhook_deliveries where endpoint_id = $1
		order by created_at limit 1`, young)
	s.WantCount(t, 1, `select count(*) from webhook_endpoints where id = $1 and disabled_at is null`, young)
}

// The last attempt of the schedule that fails makes a dead letter, which is kept and can be replayed under the same id;
// so can all since a time.
func TestDeadLetterAndReplay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	r.answers(status(http.StatusInternalServerError))
	id, secret := s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 1)
	s.start(t)
	first := r.next(t)
	s.await(t, `select attempts = 1 and job_id is null from webhook_deliveries`)
	s.exec(t, `update webhook_deliveries set attempts = 9, next_attempt_at = now()`)
	r.next(t)
	s.await(t, anyDead)
	s.await(t, `select attempts = 10 and ended_at is not null and last_error = 'status' from webhook_deliveries`)
	r.answers(nil)
	delivery := uuid.MustParse(s.text(t, `select id::text from webhook_deliveries`))
	_, err := s.endpoints.Replay(s.ctx, id, delivery)
	stack.Must(t, err)
	c := r.next(t)
	c.verify(t, secret)
	if c.id() != first.id() {
		t.Errorf("replayed as %s, was %s", c.id(), first.id())
	}
	s.await(t, allDelivered, 1)
	for _, since := range []time.Duration{time.Hour, -time.Hour} {
		s.exec(t, `update webhook_deliveries set state = 'dead'`)
		n, err := s.endpoints.ReplayDead(s.ctx, id, time.Now().Add(-since))
		stack.Must(t, err)
		if want := map[time.Duration]int64{time.Hour: 1, -time.Hour: 0}[since]; n != want {
			t.Errorf("%d replayed since %s ago, want %d", n, since, want)
		}
		if n == 1 {
			r.next(t)
			s.await(t, allDelivered, 1)
		}
	}
}

func (s *site) text(t *testing.T, sql string) (found string) {
	t.Helper()
	stack.Must(t, s.Worker.Pool().QueryRow(t.Context(), sql).Scan(&found))
	return found
}

// 429 with Retry-After holds the whole endpoint until then.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	r.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 1)
	s.start(t)
	r.next(t)
	s.await(t, `select next_attempt_at > now() + interval '59 minutes' and last_status = 429 from webhook_deliveries`)
	s.announce(t, s.ctx, 1)
	s.await(t, `select count(*) = 2 from webhook_deliveries`)
	witness := newReceiver(t)
	s.endpoint(t, s.ctx, witness.URL)
	s.announce(t, s.ctx, 1)
	witness.next(t) // by now the held endpoint would have had its webhook too
	r.none(t)
}

// A response that never ends costs its endpoint's attempt a second and no memory, and its status counts; one that never
// begins is given up.
func TestResponseThatNeverEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.conf.Timeout = 3 * time.Second
	endless, trickle, silent := newReceiver(t), newReceiver(t), newReceiver(t)
	var sent atomic.Int64
	endless.answers(func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 32<<10); ; {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	trickle.answers(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
	})
	silent.answers(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	for _, r := range []*receiver{endless, trickle, silent} {
		s.endpoint(t, s.ctx, r.URL)
	}
	s.announce(t, s.ctx, 1)
	s.start(t)
	s.await(t, allDelivered, 2)
	s.await(t, `select last_error = 'timeout' and last_ms >= 3000 from webhook_deliveries where state = 'pending'`)
	if n := s.Count(t, `select max(last_ms) from webhook_deliveries where state = 'delivered'`); n > 2500 {
		t.Errorf("an endless answer took %d ms", n)
	}
	if n := sent.Load(); n > 16<<20 { // what the buffers of sockets hold
		t.Errorf("%d bytes of an endless answer were taken", n)
	}
}

// What an upload's webhook tells is the tenant's own row, even if the announcement names another's; and of one that was
// deleted, its id.
func TestPayloadOfAnotherTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	other := s.newTenant(t)
	create := func(name string) uuid.UUID {
		id := uuid.Must(uuid.NewV7())
		s.Must(t, other, func(tx storage.Tx) error {
			return tx.CreateUpload(other, storage.NewUpload{
				ID: id, UserID: "eva", Project: "secreto", Filename: name, Metadata: map[string]string{}, Size: 10,
			})
		})
		return id
	}
	r := newReceiver(t)
	s.endpoint(t, s.ctx, r.URL)
	id := create("plano.pdf")
	s.Must(t, s.ctx, func(tx storage.Tx) error {
		return tx.Announce(s.ctx, storage.Announcement{Type: storage.AnnounceUploadCompleted, Upload: id})
	})
	s.start(t)
	c := r.next(t)
	if strings.Contains(string(c.body), "secreto") || strings.Contains(string(c.body), "plano") {
		t.Errorf("told of another tenant's row: %s", c.body)
	}
	if !strings.Contains(string(c.body), `"data":{"id":"`+id.String()+`","status":"completed","project":null`) {
		t.Errorf("payload is %s", c.body)
	}
}

// An upload that ends is announced, in the trace of what ended it, if some endpoint wants to know, and else costs no row; a
// partial upload is not.
func TestUploadsAreAnnounced(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cancel := func(kind storage.Kind) uuid.UUID {
		id := uuid.Must(uuid.NewV7())
		s.Must(t, s.ctx, func(tx storage.Tx) error {
			n := storage.NewUpload{ID: id, UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 10, Kind: kind}
			if err := tx.CreateUpload(s.ctx, n); err != nil {
				return err
			}
			return tx.Move(s.ctx, id, storage.Transition{Move: storage.MoveCancel})
		})
		return id
	}
	r := newReceiver(t)
	cancel(storage.Single)
	endpoint, _ := s.endpoint(t, s.ctx, r.URL, storage.AnnounceUploadFailed)
	cancel(storage.Single)
	types := []string{storage.AnnounceUploadCancelled}
	_, err := s.endpoints.Update(s.ctx, endpoint, Change{Types: &types})
	stack.Must(t, err)
	cancel(storage.Partial)
	s.WantCount(t, 0, `select count(*) from announcements`)
	id := cancel(storage.Single)
	s.start(t)
	c := r.next(t)
	var m struct {
		Type string
		Data Upload
	}
	stack.Must(t, json.Unmarshal(c.body, &m))
	if m.Type != "upload.cancelled" || m.Data.ID != id || m.Data.Status != storage.Cancelled || *m.Data.Project != "torre" || *m.Data.Size != 10 {
		t.Errorf("told %s", c.body)
	}
}

// Secrets are of no use without the key, nor for another endpoint; a key that was replaced still opens.
func TestVault(t *testing.T) {
	t.Parallel()
	old, err := NewVault(testKey)
	stack.Must(t, err)
	both, err := NewVault("another key that only these tests know of," + testKey)
	stack.Must(t, err)
	tenantID, endpoint := uuid.New(), uuid.New()
	secret := newSecret()
	sealed := old.seal(tenantID, endpoint, secret)
	if strings.Contains(string(sealed), secret) {
		t.Error("not sealed")
	}
	if got, err := both.open(tenantID, endpoint, sealed); err != nil || got != secret {
		t.Errorf("with both keys: %v", err)
	}
	if _, err := both.open(tenantID, uuid.New(), sealed); err == nil {
		t.Error("opens for another endpoint")
	}
	if _, err := old.open(tenantID, endpoint, both.seal(tenantID, endpoint, secret)); err == nil {
		t.Error("opens without the new key")
	}
	if _, err := NewVault(testKey + ",short"); err == nil {
		t.Error("a short key is accepted")
	}
}

// What has ended long ago is swept, with what is only its; what is pending is not, and neither are dead letters that are
// young.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	id, _ := s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 4)
	stop := s.start(t)
	s.await(t, allDelivered, 4)
	stop()
	ids := strings.Split(s.text(t, `select string_agg(id::text, ',' order by id) from webhook_deliveries`), ",")
	s.exec(t, `update announcements set created_at = now() - interval '60 days'`)
	s.exec(t, `update webhook_deliveries set ended_at = now() - interval '31 days'`)
	s.exec(t, `update webhook_deliveries set state = 'pending', ended_at = null, next_attempt_at = now() where id = $1`, ids[0])
	s.exec(t, `update webhook_deliveries set state = 'dead', ended_at = now() - interval '29 days' where id = $1`, ids[1])
	_, _, err := s.endpoints.Rotate(s.ctx, id, 0)
	stack.Must(t, err)
	n, err := sweep(t.Context(), s.Worker, DefaultSenderConfig().Retention, swept)
	stack.Must(t, err)
	left := strings.Split(s.text(t, `select string_agg(id::text, ',' order by id) from webhook_deliveries`), ",")
	if n != 2 || !slices.Equal(left, ids[:2]) {
		t.Errorf("%d swept; left are %v of %v", n, left, ids)
	}
	s.WantCount(t, 1, `select count(*) from webhook_secrets`)
}

// A tenant may have so many endpoints and no more.
func TestMaxEndpoints(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for range MaxEndpoints {
		s.endpoint(t, s.ctx, "http://127.0.0.1:8080/")
	}
	_, _, err := s.endpoints.Create(s.ctx, NewEndpoint{URL: "http://127.0.0.1:8080/"})
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
}

// A job that was taken for dead, and whose delivery another job has, can record nothing, nor send; before it is old enough,
// nothing is taken from it.
func TestStaleJob(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 1)
	q, err := queue.New(s.Worker, slog.New(slog.DiscardHandler))
	stack.Must(t, err)
	d := NewDispatcher(s.conf, s.Worker, q, slog.New(slog.DiscardHandler))
	dispatch := func() (job int64) {
		n, err := d.dispatch(t.Context())
		stack.Must(t, err)
		if n == 0 {
			return 0
		}
		stack.Must(t, s.Worker.Pool().QueryRow(t.Context(), `select job_id from webhook_deliveries`).Scan(&job))
		return job
	}
	first := dispatch()
	s.exec(t, `update river_job set state = 'running', attempt = 1, attempted_at = now() - interval '25 seconds'`)
	s.exec(t, `update webhook_deliveries set claimed_at = now() - interval '31 seconds'`)
	reclaim := func(want int64) {
		t.Helper()
		n, err := reclaim(t.Context(), s.Worker, s.conf.Timeout+grace)
		stack.Must(t, err)
		if n != want {
			t.Errorf("%d reclaimed, want %d", n, want)
		}
	}
	reclaim(0)
	if dispatch() != 0 {
		t.Error("a delivery has two jobs")
	}
	s.exec(t, `update river_job set attempted_at = now() - interval '31 seconds'`)
	reclaim(1)
	second := dispatch()
	ctx := tenant.With(t.Context(), tenant.Identity{Tenant: storagetest.TenantOf(t, s.ctx), User: "worker", Role: tenant.Admin})
	delivery := uuid.MustParse(s.text(t, `select id::text from webhook_deliveries`))
	endpoint := uuid.MustParse(s.text(t, `select id::text from webhook_endpoints`))
	for job, want := range map[int64]error{first: storage.ErrNotFound, second: nil} {
		err := s.Worker.InTenant(ctx, func(tx storage.Tx) error {
			_, err := readAttempt(ctx, tx, delivery, job)
			return err
		})
		if !errors.Is(err, want) {
			t.Errorf("attempt of job %d of %d and %d: %v", job, first, second, err)
		}
	}
	for _, c := range []struct {
		job  int64
		want error
	}{{first, storage.ErrNotFound}, {second, nil}, {second, storage.ErrNotFound}} {
		err := s.Worker.InTenant(ctx, func(tx storage.Tx) error {
			_, err := recordAttempt(ctx, tx, result{Endpoint: endpoint, Delivery: delivery, Job: c.job, Status: 200}, patience)
			return err
		})
		if !errors.Is(err, c.want) {
			t.Errorf("record of job %d of %d and %d: %v", c.job, first, second, err)
		}
	}
	s.WantCount(t, 1, `select attempts from webhook_deliveries where state = 'delivered'`)
}
