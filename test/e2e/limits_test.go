package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/test/stack"
)

// 2,000 creations at once over 128 connections to two servers, which have 80 to Postgres, fill a quota exactly.
func TestQuotaEdgeOverReplicas(t *testing.T) {
	t.Parallel()
	const size, fits, tries, atOnce = 1000, 1000, 2000, 128
	wide := "TRAMO_DATABASE_URL=" + tramo.Postgres.URL("tramo_api", tramo.Database) + "&pool_max_conns=40"
	replicas := []replica{tramo.serves(t, wide), tramo.serves(t, wide)}
	_, u := newTenant(t, fmt.Sprint(size*fits+size-1))
	var admitted, refused atomic.Int64
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(atOnce)
	for i := range tries {
		g.Go(func() error {
			a, err := u.try(ctx, "POST", replicas[i%2].URL+"/api/uploads", nil, "Upload-Length", fmt.Sprint(size))
			switch {
			case err != nil:
				return err
			case a.status == 201:
				admitted.Add(1)
			case a.status == 413:
				refused.Add(1)
			default:
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
	}
	stack.Must(t, g.Wait())
	if admitted.Load() != fits || refused.Load() != tries-fits {
		t.Errorf("%d were admitted and %d refused, where %d fit", admitted.Load(), refused.Load(), fits)
	}
	tenant := decode[struct {
		Charged   int64 `json:"charged_bytes"`
		Remaining int64 `json:"remaining_bytes"`
	}](t, u.do("GET", replicas[0].URL+"/api/tenant", nil), 200)
	if tenant.Charged != size*fits || tenant.Remaining != size-1 {
		t.Errorf("%d bytes are charged and %d remain", tenant.Charged, tenant.Remaining)
	}
}

// Two servers that share a Redis allow together what one would; without it they go on, and they find it again.
func TestRateLimitOverReplicas(t *testing.T) {
	t.Parallel()
	redis, err := stack.StartRedis(t.Context())
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, redis.Stop()) })
	const rate = 30
	env := []string{"TRAMO_REDIS_URL=" + redis.URL(), "TRAMO_REDIS_TIMEOUT=5s", fmt.Sprintf("TRAMO_RATE_USER=%d", rate)}
	replicas := []replica{tramo.serves(t, env...), tramo.serves(t, env...)}
	u := newUser(t)
	ask := func(i int) (status int) { return u.do("GET", replicas[i%2].URL+"/api/uploads", nil).status }
	start, allowed := time.Now(), 0
	for i := range 3 * rate {
		switch status := ask(i); status {
		case 200:
			allowed++
		case 429:
		default:
			t.Fatalf("answered with %d", status)
		}
	}
	most := rate + 1 + int(time.Since(start).Minutes()*rate)
	if allowed < rate || allowed > most {
		t.Errorf("%d requests were allowed, want %d to %d", allowed, rate, most)
	}
	a := u.do("GET", replicas[0].URL+"/api/uploads", nil)
	for header, want := range map[string]string{"RateLimit-Policy": `"user";q=30;w=60`, "RateLimit": `"user";r=0;t=`} {
		if got := a.header.Get(header); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}

	redis.Kill()
	for i := range 20 {
		if status := ask(i); status != 200 && status != 429 {
			t.Fatalf("without Redis a request was answered with %d", status)
		}
	}
	for _, r := range replicas {
		if r.metric(t, "tramo_rate_limit_redis_up") != 0 || r.metric(t, "tramo_rate_limit_fallbacks_total") == 0 {
			t.Error("the metrics do not say that Redis is gone")
		}
	}
	stack.Must(t, redis.Restart(context.WithoutCancel(t.Context())))
	for i, r := range replicas {
		stack.Until(t, "Redis in use again", func() bool {
			ask(i)
			return r.metric(t, "tramo_rate_limit_redis_up") == 1
		})
	}
}

// An operator changes what a tenant may do, and sees it; the tenant sees it, too.
func TestTenantCommands(t *testing.T) {
	t.Parallel()
	name, u := newTenant(t, "50GiB")
	run := func(args ...string) string {
		t.Helper()
		out, err := tramo.Tramo(stack.Context(t), append([]string{"tenant"}, args...)...)
		stack.Must(t, err)
		return out
	}
	if out := run("set", name, "--quota", "1MiB", "--max-upload-size", "1KiB", "--max-uploads", "3"); !strings.Contains(out, "1.0 MiB") {
		t.Errorf("set printed %s", out)
	}
	r := tramo.replicas[0]
	a := u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "1025")
	if p := a.problem(t); p.Type != "/problems/too-large" || !strings.Contains(string(a.body), `"max_bytes":1024`) {
		t.Errorf("%s", a.body)
	}
	u.create(r, 1024)
	shown := ""
	for line := range strings.Lines(run("list")) {
		if _, rest, ok := strings.Cut(line, name+" "); ok {
			shown = strings.Join(strings.Fields(rest), " ")
		}
	}
	stack.Want(t, shown, "active 1.0 MiB 1.0 KiB 0% 1.0 KiB 3", "list")

	// A suspension ends the tenant's tokens within seconds, on every replica.
	status := func(r replica) int { return u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "1").status }
	run("suspend", name)
	for _, r := range tramo.replicas {
		stack.Until(t, "the tenant's suspension", func() bool { return status(r) == http.StatusForbidden })
	}
	run("resume", name)
	stack.Until(t, "the end of the suspension", func() bool { return status(r) == http.StatusCreated })
	run("set", name, "--max-upload-size", "0", "--max-uploads", "0")
	u.create(r, 1025)
	for _, wrong := range [][]string{{"set", "nobody " + name}, {"set", name, "--quota", "lots"}, {"set", name, "--max-uploads", "-1"}} {
		if out, err := tramo.Tramo(stack.Context(t), append([]string{"tenant"}, wrong...)...); err == nil {
			t.Errorf("%v printed %s", wrong, out)
		}
	}
}
