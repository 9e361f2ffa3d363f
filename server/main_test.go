package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/api"
	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// secret signs the tests' tokens.
const secret = "0123456789abcdef0123456789abcdef"

const (
	mib     = 1 << 20
	part    = object.MinPartSize // of the tests' uploads in S3
	maxSize = 64 * mib           // of an upload
)

// A site is a server on a database of the test's own, and one tenant.
type site struct {
	*storagetest.Database
	server   *server.Server
	registry *prometheus.Registry
	admin    *pgxpool.Pool // of the superuser's
	leases   *lease.Manager
	url      string  // of the server on the network
	log      *record // of what the server says
	user     user
}

// newSite starts a server. Options change what it is made of.
func newSite(t testing.TB, options ...func(*server.Config, *server.Parts)) *site {
	t.Helper()
	s := &site{Database: ground.NewDatabase(t), registry: prometheus.NewRegistry()}
	var err error
	s.admin, err = pgxpool.New(context.WithoutCancel(t.Context()), stack.Get(t, ground.Postgres).URL("postgres", s.Name))
	stack.Must(t, err)
	t.Cleanup(s.admin.Close)
	s.log = &record{}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(output(t), s.log), nil))
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: stack.Get(t, ground.S3).Endpoint(), Name: stack.Get(t, ground.S3).Bucket()})
	stack.Must(t, err)
	q, err := queue.New(s.API, log)
	stack.Must(t, err)
	conf := object.DefaultConfig()
	conf.PartSize, conf.CheckpointInterval = part, 100*time.Millisecond
	store, err := object.NewStore(s.API, bucket, conf, object.NewMetrics(s.registry, bucket), log)
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, store.Close()) })
	types, err := mediatype.ParsePolicy("image/*,application/pdf,text/plain")
	stack.Must(t, err)
	s.leases = s.lease(t, log)
	uploads := &hooks.Uploads{
		Admission: &hooks.Admission{DB: s.API, Policy: hooks.Policy{MaxSize: maxSize, Types: types}, Log: log},
		DB:        s.API, Queue: q, Bucket: bucket, Store: store, Leases: s.leases, Expiry: hooks.DefaultExpiry(),
		Metrics: hooks.NewMetrics(s.registry), Log: log,
		Erasures: &erasure.Service{Config: erasure.Config{Retention: erasure.DefaultConfig().Retention}, DB: s.API, Queue: q, Log: log},
	}
	verifier, err := auth.NewVerifier(context.WithoutCancel(t.Context()), auth.Config{Secrets: secret, AdminTenants: reserved.set}, log)
	stack.Must(t, err)
	links, err := auth.NewLinks(secret)
	stack.Must(t, err)
	receipts, err := hooks.NewReceipts(s.API, hooks.ReceiptConfig{Issuer: "test", Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	stack.Must(t, err)
	vault, err := webhook.NewVault(secret)
	stack.Must(t, err)
	serverConf, parts := server.DefaultConfig(), server.Parts{
		Services: api.Services{
			DB: s.API, Bucket: bucket, Uploads: uploads, Receipts: receipts, Erasures: uploads.Erasures, Log: log,
			Webhooks: &webhook.Endpoints{DB: s.API, Guard: webhook.NewGuard(webhook.Config{}), Vault: vault},
			Batches: &batch.Service{
				Config: batch.DefaultConfig(), DB: s.API, Policy: hooks.Policy{MaxSize: maxSize, Types: types}, Queue: q,
				Uploads: uploads, Metrics: uploads.Metrics, Log: log,
			},
			DeadLetters: &deadletter.Service{DB: s.API, Queue: q, Uploaded: uploads.Metrics.Into(storage.Uploaded), Log: log},
			Quarantine:  &quarantine.Service{DB: s.API, Queue: q, Log: log},
			Limits:      &ratelimit.Limits{},
		},
		Verifier: verifier, Links: links, Metrics: server.NewMetrics(s.registry), Tracers: noop.NewTracerProvider(),
	}
	for _, option := range options {
		option(&serverConf, &parts)
	}
	s.server, err = server.New(serverConf, parts)
	stack.Must(t, err)
	s.url = serve(t, s.server, s.guarded(t, s.server))
	s.user = s.newTenant(t)
	return s
}

// serve puts a server on the network until the test ends, behind a handler, and returns its address.
func serve(t testing.TB, sv *server.Server, behind http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- sv.ServeBehind(ctx, l.(*net.TCPListener), behind) }()
	t.Cleanup(func() {
		cancel()
		stack.Must(t, <-ended)
	})
	return "http://" + l.Addr().String()
}

// lease heartbeats until the test ends.
func (s *site) lease(t testing.TB, log *slog.Logger) *lease.Manager {
	leases := lease.NewManager(s.API, "test", time.Minute, log)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- leases.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		stack.Must(t, stack.Receive(t, "end of the lease manager", ended))
	})
	return leases
}

// as returns another user of the same tenant.
func (u user) as(s *site, name string, role tenant.Role, projects ...string) user {
	u.t.Helper()
	who := u.who
	who.User, who.Role, who.Projects = name, role, projects
	return s.as(u.t, who)
}

// newTenant makes a tenant and returns its employee.
func (s *site) newTenant(t testing.TB) user {
	t.Helper()
	id := reserved.take()
	s.exec(t, `insert into tenants (id, name, quota_bytes) values ($1, $2, $3)`, id, id.String(), int64(1<<40))
	return s.as(t, tenant.Identity{Tenant: id, User: "ana", Role: tenant.Empleado})
}

// reserved are the ids of the tests' tenants, which servers are told before the tenants are there: all may have admins.
var reserved = func() *reservedIDs {
	r := &reservedIDs{set: auth.Tenants{}}
	for range cap(r.ids) {
		id := uuid.Must(uuid.NewV7())
		r.ids[len(r.set)], r.set[id] = id, true
	}
	return r
}()

type reservedIDs struct {
	ids  [1 << 15]uuid.UUID
	set  auth.Tenants
	next atomic.Int32
}

func (r *reservedIDs) take() uuid.UUID { return r.ids[r.next.Add(1)-1] }

func (s *site) as(t testing.TB, who tenant.Identity) user {
	t.Helper()
	token, err := auth.Config{Secrets: secret}.Sign(who, time.Hour, time.Now())
	stack.Must(t, err)
	return user{t: t, who: who, token: token, uploads: s.url + server.UploadsPath}
}

// value returns the one value that sql yields.
func value[T any](t testing.TB, s *site, sql string, args ...any) (v T) {
	t.Helper()
	stack.Must(t, s.admin.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

func (s *site) count(t testing.TB, sql string, args ...any) int {
	t.Helper()
	return value[int](t, s, sql, args...)
}

func (s *site) wantCount(t testing.TB, want int, sql string, args ...any) {
	t.Helper()
	stack.Want(t, s.count(t, sql, args...), want, "%s %v", sql, args)
}

func (s *site) wantJobs(t testing.TB, upload string, want int) {
	t.Helper()
	s.wantCount(t, want, `select count(*) from river_job where args->>'upload_id' = $1`, idOf(upload).String())
}

func (s *site) wantCharged(t testing.TB, u user, bytes int) {
	t.Helper()
	s.wantCount(t, bytes, `select charged_bytes from tenants where id = $1`, u.who.Tenant)
}

// transaction runs sql in a transaction of the superuser's, which the test ends.
func (s *site) transaction(t testing.TB, sql string, args ...any) pgx.Tx {
	t.Helper()
	tx, err := s.admin.Begin(t.Context())
	stack.Must(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }) // it may have ended
	_, err = tx.Exec(t.Context(), sql, args...)
	stack.Must(t, err)
	return tx
}

// exec does what only time or an operator would.
func (s *site) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	tag, err := s.admin.Exec(t.Context(), sql, args...)
	stack.Must(t, err)
	if tag.RowsAffected() == 0 {
		t.Fatalf("%s changed nothing", sql)
	}
}

// A user speaks tus over HTTP.
type user struct {
	t       testing.TB
	who     tenant.Identity
	token   string
	uploads string // address of the collection
}

// An answer is an HTTP response, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// request makes a request of tus 1.0.0. headers are names and values; an empty value takes a header away.
func (u user) request(method, url string, body io.Reader, headers ...string) *http.Request {
	u.t.Helper()
	r, err := http.NewRequestWithContext(u.t.Context(), method, url, body)
	stack.Must(u.t, err)
	r.Header.Set("Authorization", "Bearer "+u.token)
	r.Header.Set("Tus-Resumable", "1.0.0")
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	return r
}

// client bounds requests whose answer ends. Uploads of a test take less.
var client = &http.Client{Timeout: 2 * stack.Patience}

func (u user) send(r *http.Request) answer {
	u.t.Helper()
	res, err := client.Do(r)
	stack.Must(u.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	stack.Must(u.t, err)
	return answer{res.StatusCode, res.Header, b}
}

func (u user) do(method, url string, body io.Reader, headers ...string) answer {
	u.t.Helper()
	return u.send(u.request(method, url, body, headers...))
}

// create begins an upload and returns its address.
func (u user) create(size int, headers ...string) string {
	u.t.Helper()
	a := u.do("POST", u.uploads, nil, append([]string{"Upload-Length", strconv.Itoa(size)}, headers...)...).want(u.t, 201, "")
	return a.header.Get("Location")
}

const octets = "application/offset+octet-stream"

func (u user) patch(url string, offset int, body io.Reader, headers ...string) answer {
	u.t.Helper()
	return u.do("PATCH", url, body, append([]string{"Upload-Offset", strconv.Itoa(offset), "Content-Type", octets}, headers...)...)
}

func (u user) offset(url string) int {
	u.t.Helper()
	a := u.do("HEAD", url, nil).want(u.t, 200, "")
	n, err := strconv.Atoi(a.header.Get("Upload-Offset"))
	stack.Must(u.t, err)
	return n
}

func (u user) wantOffset(url string, want int) {
	u.t.Helper()
	stack.Want(u.t, u.offset(url), want, "offset of %s", url)
}

// upload is what GET tells.
func (u user) upload(url string) (j struct {
	Status    string
	Offset    int
	Filename  string
	Type      string
	SHA256    string
	ExpiresAt *time.Time `json:"expires_at"`
}) {
	u.t.Helper()
	stack.Must(u.t, json.Unmarshal(u.do("GET", url, nil).want(u.t, 200, "").body, &j))
	return j
}

// want checks the status and, of an error, the name of its problem.
func (a answer) want(t testing.TB, status int, problem string) answer {
	t.Helper()
	var p struct{ Type string }
	_ = json.Unmarshal(a.body, &p) // then it has none
	if a.status != status || problem != "" && p.Type != "/problems/"+problem {
		t.Errorf("%d %s, want %d %s", a.status, a.body, status, problem)
	}
	return a
}

// wantText checks that the body has each text.
func (a answer) wantText(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(string(a.body), text) {
			t.Errorf("%d %s does not say %q", a.status, a.body, text)
		}
	}
}

// wantNoText checks that the body has none of the texts.
func (a answer) wantNoText(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(string(a.body), text) {
			t.Errorf("%d %s says %q", a.status, a.body, text)
		}
	}
}

// wantHeader checks a header; "" wants none.
func (a answer) wantHeader(t testing.TB, name, value string) {
	t.Helper()
	stack.Want(t, a.header.Get(name), value, "header %s", name)
}

// metadata encodes pairs as Upload-Metadata.
func metadata(pairs ...string) string {
	var all []string
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, pairs[i]+" "+base64.StdEncoding.EncodeToString([]byte(pairs[i+1])))
	}
	return strings.Join(all, ",")
}

func idOf(url string) uuid.UUID { return uuid.MustParse(url[strings.LastIndexByte(url, '/')+1:]) }

// pathOnly is an upload's address without its server.
func pathOnly(address string) string { return server.UploadsPath + "/" + idOf(address).String() }

// noise makes bytes that no two tests share.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte([]byte(uuid.NewString())[:32])).Read(b) // never fails
	return b
}

func reader(b []byte) io.Reader { return bytes.NewReader(b) }

const patience = stack.Patience

// output is where a server logs. A fuzz target may not write to the test that it belongs to.
func output(t testing.TB) io.Writer {
	if _, fuzzing := t.(*testing.F); fuzzing {
		return io.Discard
	}
	return t.Output()
}

// A record keeps what is written to it.
type record struct {
	mu   sync.Mutex
	text []byte
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, b...)
	return len(b), nil
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}
