package webhook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

const testKey = "a key that only these tests know of"

// A site is a database of the test's own, one tenant with a manager, and what manages its endpoints.
type site struct {
	*storagetest.Database
	ctx       context.Context // acts for the manager
	endpoints *Endpoints
	guard     *Guard // of the senders
	conf      SenderConfig
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Database: ground.NewDatabase(t), conf: DefaultSenderConfig()}
	s.ctx = s.newTenant(t)
	vault, err := NewVault(testKey)
	stack.Must(t, err)
	s.guard = NewGuard(localConfig())
	s.endpoints = &Endpoints{DB: s.API, Guard: NewGuard(localConfig()), Vault: vault}
	return s
}

// localConfig lets webhooks reach the tests' receivers.
func localConfig() Config {
	return Config{Keys: testKey, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true}
}

// newTenant returns a context that acts for the manager of a tenant of its own.
func (s *site) newTenant(t *testing.T) context.Context {
	t.Helper()
	who, err := tenant.From(s.NewTenant(t, 1<<40))
	stack.Must(t, err)
	who.Role = tenant.Constructora
	return tenant.With(t.Context(), who)
}

// endpoint registers the URL and returns its id and secret.
func (s *site) endpoint(t *testing.T, ctx context.Context, url string, types ...string) (uuid.UUID, string) {
	t.Helper()
	w, secret, err := s.endpoints.Create(ctx, NewEndpoint{URL: url, Types: types})
	stack.Must(t, err)
	return w.ID, secret
}

// announce announces n things to the tenant.
func (s *site) announce(t *testing.T, ctx context.Context, n int) {
	t.Helper()
	s.Must(t, ctx, func(tx storage.Tx) error {
		for i := range n {
			a := storage.Announcement{Type: storage.AnnounceQuotaWarning, Detail: map[string]any{"percent": i}}
			if err := tx.Announce(ctx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// start runs a worker: a dispatcher, and a pool that sends. It returns what stops it once running attempts have ended.
func (s *site) start(t *testing.T) (stop func()) {
	t.Helper()
	log := stack.Log(t, slog.LevelWarn)
	q, err := queue.New(s.Worker, log)
	stack.Must(t, err)
	d := NewDispatcher(s.conf, s.Worker, q, log)
	vault, err := NewVault(testKey)
	stack.Must(t, err)
	sender := NewSender(s.conf, d, vault, s.guard, NewMetrics(prometheus.NewRegistry()), sdktrace.NewTracerProvider(), log)
	leases := lease.NewManager(s.Worker, "worker", 5*time.Second, log)
	conf := queue.Config{RetryDelay: time.Second, BusyDelay: time.Second, LostAfter: 15 * time.Second, StopTimeout: time.Millisecond}
	pool := queue.NewPool(conf, s.Worker, leases, queue.NewMetrics(prometheus.NewRegistry()), sdktrace.NewTracerProvider(), log)
	sender.Register(pool)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- d.Run(ctx) }()
	go func() { ended <- leases.During(ctx, pool.Run) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(stack.Receive(t, "end of the worker", ended), stack.Receive(t, "end of the worker", ended)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// A call is a webhook as it arrived.
type call struct {
	header http.Header
	body   []byte
}

// A receiver is a real HTTP server that keeps what arrives and answers as it is told to.
type receiver struct {
	*httptest.Server
	calls  chan call
	mu     sync.Mutex
	answer http.HandlerFunc
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{calls: make(chan call, 10_000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		r.calls <- call{q.Header, body}
		r.mu.Lock()
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(w, q)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// answers has the receiver answer so from now on.
func (r *receiver) answers(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = h
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// next waits for the next call.
func (r *receiver) next(t *testing.T) call {
	t.Helper()
	return stack.Receive(t, "webhook", r.calls)
}

// none fails if something has arrived.
func (r *receiver) none(t *testing.T) {
	t.Helper()
	select {
	case c := <-r.calls:
		t.Errorf("%s arrived", c.body)
	default:
	}
}

// verify checks the call as a receiver would, with the specification's own library.
func (c call) verify(t *testing.T, secret string) {
	t.Helper()
	if err := c.verifies(t, secret); err != nil {
		t.Error(err)
	}
}

func (c call) verifies(t *testing.T, secret string) error {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	stack.Must(t, err)
	return w.Verify(c.body, c.header)
}

func (c call) id() string { return c.header.Get("Webhook-Id") }

// await waits until sql, which yields a boolean or nothing, is true.
func (s *site) await(t *testing.T, sql string, args ...any) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(stack.Patience); ; <-tick.C {
		var yes bool
		stack.Must(t, s.Worker.Pool().QueryRow(t.Context(), `select coalesce((`+sql+`), false)`, args...).Scan(&yes))
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s; deliveries are %v", sql, s.rows(t))
		}
	}
}

func (s *site) rows(t *testing.T) []string {
	return storagetest.Column[string](t, s.Admin(t), `select to_jsonb(d)::text from webhook_deliveries d limit 20`)
}

// exec does what only time would.
func (s *site) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	tag, err := s.Worker.Pool().Exec(t.Context(), sql, args...)
	stack.Must(t, err)
	if tag.RowsAffected() == 0 {
		t.Fatalf("%s changed nothing", sql)
	}
}
