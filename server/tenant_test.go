package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// Each role reads the quota and limits of its own tenant, and of no other.
func TestTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{Uploads: ratelimit.Rate{PerMinute: 50, Burst: 2000}}))
	s.newTenant(t)
	s.exec(t, `update tenants set quota_bytes = 1000, max_upload_bytes = 300, max_uploads = 7 where id = $1`, s.user.who.Tenant)
	s.user.create(250)
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista, tenant.Admin} {
		u := s.as(t, tenant.Identity{Tenant: s.user.who.Tenant, User: "luz", Role: role})
		fields := readAs[map[string]any](t, u.do("GET", s.url+"/api/tenant", nil), 200)
		limits, _ := json.Marshal(fields["rate_limits"])
		for name, want := range map[string]any{
			"id": s.user.who.Tenant.String(), "user_id": "luz", "role": string(role), "quota_bytes": 1000.0, "charged_bytes": 250.0, "remaining_bytes": 750.0,
			"max_upload_bytes": 300.0, "max_uploads": 7.0,
		} {
			stack.Want(t, fields[name], want, "%s: %s", role, name)
		}
		stack.Want(t, string(limits), `[{"burst":2000,"name":"uploads","per_minute":50}]`, "%s: limits", role)
	}
	stranger := s.as(t, tenant.Identity{Tenant: uuid.New(), User: "luz", Role: tenant.Constructora})
	stranger.do("GET", s.url+"/api/tenant", nil).want(t, 403, "no-tenant")
}

// A refusal for lack of quota has the numbers.
func TestTenantQuotaInRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, `update tenants set quota_bytes = 1000, max_upload_bytes = 900 where id = $1`, s.user.who.Tenant)
	s.user.create(250)
	for _, c := range []struct {
		length, problem string
		want            map[string]float64
	}{
		{"751", "quota-exceeded", map[string]float64{"quota_bytes": 1000, "charged_bytes": 250, "remaining_bytes": 750}},
		{"901", "too-large", map[string]float64{"max_bytes": 900}},
		{"67108865", "too-large", map[string]float64{"max_bytes": maxSize}},
	} {
		got := readAs[map[string]any](t, s.user.do("POST", s.user.uploads, nil, "Upload-Length", c.length).want(t, 413, c.problem), 413)
		for name, want := range c.want {
			stack.Want[any](t, got[name], want, "%s bytes: %s", c.length, name)
		}
	}
	s.user.do("POST", s.user.uploads, nil, "Upload-Length", "", "Upload-Defer-Length", "1").want(t, 413, "quota-exceeded")
}

// A tenant with the maximum of concurrent uploads waits, and is refused with a status after which tus clients go on. HEAD, DELETE
// and other tenants do not wait.
func TestTenantConcurrency(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.TenantUploads, c.LeaseTimeout = 1, 300*time.Millisecond })
	slow, quick, third := s.user.create(8), s.user.create(8), s.user.create(8)
	body, sender := io.Pipe()
	ended := make(chan answer, 1)
	go func() { ended <- s.user.patch(slow, 0, body) }()
	_, err := sender.Write(noise(4))
	stack.Must(t, err)
	var a answer
	stack.Until(t, "the only slot is taken", func() bool {
		a = s.user.patch(quick, 0, reader(noise(1)), "Content-Length", "1")
		return strings.Contains(string(a.body), "tenant-busy")
	})
	a.want(t, 423, "tenant-busy")
	a.wantHeader(t, "Retry-After", "5")
	a.wantHeader(t, "Tus-Resumable", "1.0.0")
	s.user.do("POST", s.user.uploads, reader(noise(4)), "Upload-Length", "8", "Content-Type", octets).want(t, 423, "tenant-busy")
	offset := s.user.offset(quick)
	s.user.do("DELETE", third, nil).want(t, 204, "")
	s.user.create(8)
	other := s.newTenant(t)
	other.patch(other.create(8), 0, reader(noise(8))).want(t, 204, "")

	_, err = sender.Write(noise(4))
	stack.Must(t, err)
	stack.Must(t, sender.Close())
	stack.Receive(t, "answer to the slow PATCH", ended).want(t, 204, "")
	s.user.patch(quick, offset, reader(noise(8-offset))).want(t, 204, "")
}

// One of a crew holds all places with bodies that hardly arrive. Once another one waits, they give way, and lose nothing: by tus,
// by the draft, and as a form.
func TestSlowBodyGivesWay(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) {
		c.TenantUploads, c.LeaseTimeout = 1, patience
		c.LeastRate, c.LeastRateOver = 1<<20, 100*time.Millisecond
	})
	ana, luz := s.user, s.user.as(s, "luz", tenant.Empleado)
	for name, headers := range map[string][]string{
		"tus":   {"Tus-Resumable: 1.0.0", "Upload-Offset: 0", "Content-Type: " + octets},
		"draft": {"Upload-Draft-Interop-Version: 6", "Upload-Offset: 0", "Upload-Complete: ?0", "Content-Type: application/partial-upload"},
		"form":  {"Content-Type: multipart/form-data; boundary=b"},
	} {
		url, method := ana.create(mib), "PATCH"
		address := url
		if name == "form" {
			method, address = "POST", ana.uploads
		}
		l := ana.line(t, method, address, append(headers, "Content-Length: 1000000", "Expect: 100-continue")...)
		answers := bufio.NewReader(l)
		if asked, err := answers.ReadString('\n'); err != nil || !strings.HasPrefix(asked, "HTTP/1.1 100") {
			t.Fatalf("%s: the body is not asked for: %q, %v", name, asked, err)
		}
		_, err := answers.ReadString('\n')
		stack.Must(t, err)
		l.say("0123456789")
		hers := luz.create(8)
		luz.patch(hers, 0, reader(noise(8))).want(t, 204, "")
		a, _ := l.next(answers)
		a.want(t, http.StatusLocked, "gave-way")
		if name != "form" {
			ana.wantOffset(url, 10)
		}
	}
}

// A manifest has the limits of single uploads: the tenant's maximum size, its quota warnings, and the rate of new uploads, where
// each entry counts. A request that repeats its key creates nothing and is not limited.
func TestBatchManifestLimits(t *testing.T) {
	t.Parallel()
	const ours = "https://app.example.com"
	s := newSite(t, limited(t, ratelimit.Rates{Uploads: ratelimit.Rate{PerMinute: 1, Burst: 4}}),
		func(c *server.Config, _ *server.Parts) { c.CORSOrigins = []string{ours} })
	s.exec(t, `update tenants set quota_bytes = 1000, max_upload_bytes = 300 where id = $1`, s.user.who.Tenant)
	send := func(key string, sizes ...int) answer {
		entries := make([]map[string]any, len(sizes))
		for i, size := range sizes {
			entries[i] = map[string]any{"client_id": fmt.Sprint(key, i), "filename": "a.jpg", "size": size}
		}
		body, err := json.Marshal(map[string]any{"name": "lunes", "uploads": entries})
		stack.Must(t, err)
		return s.user.do("POST", s.url+"/api/batches", bytes.NewReader(body), "Content-Type", "application/json",
			"Idempotency-Key", key, "Origin", ours)
	}
	a := send("large", 301)
	if a.want(t, 422, "bad-manifest"); !bytes.Contains(a.body, []byte("300 B")) {
		t.Errorf("too large for the tenant: %s", a.body)
	}
	first := send("first", 300, 300, 250).want(t, 201, "")
	s.wantCount(t, 1, `select count(*) from announcements where type = 'quota.warning' and detail->>'percent' = '80'`)
	a = send("second", 1, 1).want(t, 429, "rate-limited")
	a.wantHeader(t, "Access-Control-Allow-Origin", ours)
	if exposed := a.header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "Retry-After") || !strings.Contains(strings.ToLower(exposed), "ratelimit-policy") {
		t.Errorf("a page can read %s", exposed)
	}
	for range 3 {
		if again := send("first", 300, 300, 250); again.status != 201 || !bytes.Equal(again.body, first.body) {
			t.Errorf("asked again: %d %s", again.status, again.body)
		}
	}
}
