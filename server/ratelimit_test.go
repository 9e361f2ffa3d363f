package server_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// limited makes a site with these rates.
func limited(t testing.TB, r ratelimit.Rates) func(*server.Config, *server.Parts) {
	return func(_ *server.Config, p *server.Parts) {
		var err error
		p.Limits, err = ratelimit.New(r, nil, prometheus.NewRegistry(), p.Log)
		stack.Must(t, err)
	}
}

// wantRefused checks a refusal by a rate limit: Retry-After, RateLimit and the problem have the same number of seconds.
func (a answer) wantRefused(t testing.TB, status int, problem, policy string) {
	t.Helper()
	a.want(t, status, problem)
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || wait < 1 || wait > 60 {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	r, w := a.rate(t, "RateLimit", policy, "r"), a.rate(t, "RateLimit", policy, "t")
	if r != 0 || w != int64(wait) {
		t.Errorf("RateLimit has r=%d and t=%d beside Retry-After: %d", r, w, wait)
	}
}

// rate reads a parameter of a policy from a header, as a client that parses structured fields does.
func (a answer) rate(t testing.TB, header, policy, parameter string) int64 {
	t.Helper()
	list, err := httpsfv.UnmarshalList(a.header.Values(header))
	stack.Must(t, err)
	for _, member := range list {
		if item := member.(httpsfv.Item); item.Value == policy {
			n, _ := item.Params.Get(parameter)
			return n.(int64)
		}
	}
	t.Errorf("%s is %q, without %s", header, a.header.Values(header), policy)
	return -1
}

// An address has its rate whatever token it sends, invalid ones included, and whatever forwarding headers.
func TestRateLimitOfAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{IP: ratelimit.Rate{PerMinute: 5}}))
	guesser := s.user
	guesser.token = "guessed"
	for i := range 5 {
		a := guesser.do("GET", s.user.uploads, nil, "X-Forwarded-For", "203.0.113."+strconv.Itoa(i)).want(t, 401, "unauthorized")
		if left := a.rate(t, "RateLimit", "ip", "r"); left != int64(4-i) {
			t.Errorf("after %d requests %d are left", i+1, left)
		}
		a.wantHeader(t, "RateLimit-Policy", `"ip";q=5;w=60`)
	}
	s.user.do("GET", s.user.uploads, nil).wantRefused(t, 429, "rate-limited", "ip")
	s.user.do("GET", s.url+"/", nil).wantRefused(t, 429, "rate-limited", "ip")
	a := s.user.do("POST", s.user.uploads, nil, "Upload-Length", "5")
	a.wantRefused(t, 429, "rate-limited", "ip")
	a.wantHeader(t, "Tus-Resumable", "1.0.0")
	s.user.do("HEAD", s.user.uploads+"/"+uuid.NewString(), nil).want(t, 404, "") // transfers have a rate of their own
}

// A user's rate is shared neither with a user of the same name in another tenant nor with others of the tenant.
func TestRateLimitOfUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{User: ratelimit.Rate{PerMinute: 6, Burst: 3}}))
	namesake := s.newTenant(t)
	colleague := s.as(t, tenant.Identity{Tenant: s.user.who.Tenant, User: "luz", Role: tenant.Empleado})
	for range 3 {
		a := s.user.do("GET", s.user.uploads, nil).want(t, 200, "")
		a.wantHeader(t, "RateLimit-Policy", `"user";q=3;w=30`)
	}
	s.user.do("GET", s.user.uploads, nil).wantRefused(t, 429, "rate-limited", "user")
	namesake.do("GET", s.user.uploads, nil).want(t, 200, "")
	colleague.do("GET", s.user.uploads, nil).want(t, 200, "")
	stack.Until(t, "the user may ask again", func() bool { return s.user.do("GET", s.user.uploads, nil).status == 200 })
}

// A user whose rate of creations is exhausted can still send, resume, cancel and read its uploads.
func TestRateLimitOfCreations(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{Uploads: ratelimit.Rate{PerMinute: 1, Burst: 4}, User: ratelimit.Rate{PerMinute: 2}}))
	var urls []string
	for range 4 {
		urls = append(urls, s.user.create(8))
	}
	s.user.do("POST", s.user.uploads, nil, "Upload-Length", "5").wantRefused(t, 429, "rate-limited", "uploads")
	for range 20 {
		s.user.patch(urls[0], s.user.offset(urls[0]), nil).want(t, 204, "")
	}
	s.user.patch(urls[0], 0, reader(noise(8))).want(t, 204, "")
	s.user.do("DELETE", urls[1], nil).want(t, 204, "")
	s.user.do("GET", urls[0], nil).want(t, 200, "")
}

// A client that asks for its offset in a loop gets a status on which tus-js-client keeps the upload.
func TestRateLimitOfTransfers(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{Transfers: ratelimit.Rate{PerMinute: 6, Burst: 2}}))
	url := s.user.create(8)
	s.user.offset(url)
	s.user.patch(url, 0, reader(noise(4))).want(t, 204, "")
	a := s.user.do("HEAD", url, nil)
	a.wantRefused(t, 423, "", "transfers")
	a.wantHeader(t, "Tus-Resumable", "1.0.0")
	s.user.patch(url, 4, reader(noise(4))).wantRefused(t, 423, "slow-down", "transfers")
	stack.Until(t, "the client goes on where it was", func() bool {
		return s.user.patch(url, 4, reader(noise(4))).status == http.StatusNoContent
	})
}

// The same for an address.
func TestRateLimitOfTransfersByAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{IPTransfers: ratelimit.Rate{PerMinute: 6, Burst: 1}, IP: ratelimit.Rate{PerMinute: 2}}))
	url := s.user.create(8)
	s.user.offset(url)
	a := s.user.do("HEAD", url, nil)
	a.wantRefused(t, 423, "", "ip-transfers")
	a.wantHeader(t, "Tus-Resumable", "1.0.0")
	s.user.do("GET", url, nil).want(t, 200, "")
}

// Without a rate there is no limit and no header.
func TestRateLimitOff(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]func(*server.Config, *server.Parts){
		"none": nil, "zero": {limited(t, ratelimit.Rates{})},
	} {
		s := newSite(t, options...)
		for range 10 {
			a := s.user.do("GET", s.user.uploads, nil).want(t, 200, "")
			if h := a.header.Get("RateLimit-Policy") + a.header.Get("RateLimit"); h != "" {
				t.Errorf("%s: the answer tells of %s", name, h)
			}
		}
	}
}
