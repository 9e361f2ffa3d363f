package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// A scene is an isolated installation with two tenants, each with uploads of many states; only the first is to be erased.
type scene struct {
	*isolated
	crew, manager, one, two user // of the tenant acme
	other                   user
	acme, otherID           string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{isolated: newIsolated(t, "TRAMO_ERASURE_DELAY=0s")}
	s.crew = s.user(t)
	_, err := s.Tramo(stack.Context(t), "tenant", "add", "other")
	stack.Must(t, err)
	s.manager, s.other = s.userOf(t, "acme", "jefa", "constructora"), s.userOf(t, "other", "jefe", "constructora")
	s.one, s.two = s.adminOf(t, "operators", "one", "acme"), s.adminOf(t, "auditors", "two", "acme")
	stack.Must(t, s.sql.QueryRow(stack.Context(t), `select id::text from tenants where name = 'acme'`).Scan(&s.acme))
	stack.Must(t, s.sql.QueryRow(stack.Context(t), `select id::text from tenants where name = 'other'`).Scan(&s.otherID))

	worker, err := s.work(stack.Context(t))
	stack.Must(t, err)
	for i := range 6 {
		for _, u := range []user{s.crew, s.other} {
			u.await(u.send(s.server, stack.PNG(10+i, 10), "filetype", "image/png", "client_id", strconv.Itoa(i)))
		}
	}
	for _, u := range []user{s.crew, s.other} {
		u.await(u.send(s.server, eicar(), "filetype", "image/png"))
		deleted := u.send(s.server, stack.PNG(30, 10), "filetype", "image/png")
		u.await(deleted)
		u.do("DELETE", deleted, nil).want(t, http.StatusNoContent, "")
		large := make([]byte, 9<<20) // a part is in S3, and a tail in Postgres
		u.patch(u.create(s.server, 20<<20), 0, large)
		u.create(s.server, 100)
	}
	stack.Must(t, worker.Stop())
	return s
}

// hunt runs workers against S3 behind a proxy, each until a random request of its, at which it is killed; one in eight
// requests fails besides. The last worker may live. It ends when the erasure is done.
func (s *scene) hunt(t *testing.T, u user, erasure string, random *rand.Rand) {
	t.Helper()
	proxy, err := stack.NewS3Proxy(s.S3.Endpoint())
	stack.Must(t, err)
	defer proxy.Stop()
	done := func() bool {
		return decode[struct{ State string }](t, u.do("GET", erasure, nil), http.StatusOK).State == "done"
	}
	const kills = 6
	killed := 0
	for i := range kills + 1 {
		var worker atomic.Pointer[stack.Process]
		at, seed := int64(1+random.IntN(12)), random.Uint64()
		var requests atomic.Int64
		proxy.Fault(func(kind string, _ int) stack.Fault {
			if kind == "HeadBucket" {
				return stack.Fault{}
			}
			n := requests.Add(1)
			fault := stack.Fault{}
			if mixed := (seed ^ uint64(n)*0x9e3779b97f4a7c15) >> 32; mixed%8 == 0 && i < kills {
				fault = stack.Fault{Status: http.StatusServiceUnavailable, After: mixed%16 == 0}
			}
			if p := worker.Load(); p != nil && n == at && i < kills {
				p.Kill() // the request itself goes on
			}
			return fault
		})
		p, err := stack.Start(stack.ProcessConfig{Path: s.Programs.Path("tramo-worker"), Env: s.Env("tramo_worker",
			"TRAMO_S3_ENDPOINT="+proxy.Endpoint(), "TRAMO_OPS_LISTEN=127.0.0.1:0", "TRAMO_ERASE_INTERVAL=1s", "TRAMO_LEASE_TTL=1s")})
		stack.Must(t, err)
		worker.Store(p)
		// River's leader died with the last worker; a request for an erasure does not wait for the next leader.
		s.other.do("POST", s.server.URL+"/api/erasures", strings.NewReader(`{"user_id": "nobody"}`)).want(t, http.StatusAccepted, "")
		ended := false
		stack.Until(t, "end of the erasure or of its worker", func() bool {
			select {
			case <-p.Exited():
				return true
			default:
			}
			ended = done()
			return ended
		})
		if ended {
			_ = p.Stop()
			t.Logf("done after %d kills", killed)
			if killed == 0 {
				t.Error("no worker was killed before the erasure was done")
			}
			return
		}
		killed++
		t.Logf("killed at request %d", at)
	}
	t.Fatal("the erasure did not come to an end")
}

// dump are all rows that name the tenant, of all tables but those given, and all of its objects and multipart uploads.
func (s *scene) dump(t *testing.T, id string, but ...string) (all []string) {
	t.Helper()
	strs := func(sql string, args ...any) []string {
		rows, err := s.sql.Query(stack.Context(t), sql, args...)
		stack.Must(t, err)
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		stack.Must(t, err)
		return found
	}
	for _, table := range strs(`select relname::text from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace order by 1`) {
		if slices.Contains(but, table) {
			continue
		}
		for _, row := range strs(fmt.Sprintf(`select to_jsonb(x)::text from %s x where to_jsonb(x)::text like '%%' || $1 || '%%' order by 1`, table), id) {
			all = append(all, table+": "+row)
		}
	}
	prefix := "tenants/" + id + "/"
	objects, err := s.S3.Client("").ListObjectsV2(stack.Context(t), &s3.ListObjectsV2Input{Bucket: &s.Bucket, Prefix: &prefix})
	stack.Must(t, err)
	for _, o := range objects.Contents {
		all = append(all, *o.Key+" "+*o.ETag)
	}
	begun, err := s.S3.Client("").ListMultipartUploads(stack.Context(t), &s3.ListMultipartUploadsInput{Bucket: &s.Bucket, Prefix: &prefix})
	stack.Must(t, err)
	for _, m := range begun.Uploads {
		all = append(all, *m.Key+" "+*m.UploadId)
	}
	return all
}

func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("TRAMO_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		stack.Must(t, err)
	}
	t.Logf("TRAMO_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func (u user) erasure(at replica, body string) string {
	u.t.Helper()
	a := u.do("POST", at.URL+"/api/erasures", strings.NewReader(body)).want(u.t, http.StatusAccepted, "")
	return at.URL + a.header.Get("Location")
}

// Kill the worker at random steps of an erasure, again and again, while S3 fails now and then: in the end nothing names
// what was erased but the audit log, the erasures and the tenant's own row, S3 has nothing of it, and of another tenant
// every row, object and multipart upload is what it was.
func TestErasureSurvivesKills(t *testing.T) {
	t.Parallel()
	keep := []string{"audit", "erasures", "river_job"}
	t.Run("tenant", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		before := s.dump(t, s.otherID, keep...)
		erasure := s.one.erasure(s.server, `{"tenant": true}`)
		s.one.do("POST", erasure+"/approve", nil).want(t, http.StatusForbidden, "")
		same := s.adminOf(t, "operators", "two", "acme") // from the same place
		same.do("POST", erasure+"/approve", nil).want(t, http.StatusForbidden, "")
		s.two.do("POST", erasure+"/approve", nil).want(t, http.StatusAccepted, "")
		s.crew.do("POST", s.server.URL+"/api/uploads", nil, "Upload-Length", "5").want(t, http.StatusForbidden, "")
		s.hunt(t, s.one, erasure, seeded(t))
		if left := s.dump(t, s.acme, "audit", "erasures", "tenants"); len(left) > 0 {
			t.Errorf("left are\n%s", strings.Join(left, "\n"))
		}
		s.wantCount(t, 1, `select count(*) from tenants where erased_at is not null and charged_bytes = 0 and name like 'erased %'`)
		wantUntouched(t, before, s.dump(t, s.otherID, keep...))
	})
	t.Run("user", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		before := s.dump(t, s.otherID, keep...)
		mine := s.manager.send(s.server, stack.PNG(40, 10), "filetype", "image/png")
		s.hunt(t, s.manager, s.manager.erasure(s.server, `{"user_id": "crew"}`), seeded(t))
		for _, row := range s.dump(t, s.acme, "audit", "erasures", "tenants") {
			if !strings.Contains(row, idOf(mine)) {
				t.Errorf("left is %s", row)
			}
		}
		s.wantCount(t, 1, `select count(*) from tenants t where name = 'acme' and charged_bytes = (select size from uploads where tenant_id = t.id)`)
		wantUntouched(t, before, s.dump(t, s.otherID, keep...))
	})
}

func wantUntouched(t *testing.T, before, after []string) {
	t.Helper()
	if len(before) < 50 || !slices.Equal(before, after) {
		t.Errorf("another tenant had\n%s\nand has\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}
