package server_test

import (
	"strings"
	"testing"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/test/stack"
)

func behind(t testing.TB, networks string) func(*server.Config, *server.Parts) {
	return func(c *server.Config, _ *server.Parts) {
		stack.Must(t, c.TrustedProxies.UnmarshalText([]byte(networks)))
	}
}

// Behind a proxy each client has its own limit, and cannot change it by forwarding headers of its own.
func TestRateLimitBehindProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t, behind(t, "127.0.0.0/8"), limited(t, ratelimit.Rates{IP: ratelimit.Rate{PerMinute: 2}}))
	from := func(forwarded string) int {
		return s.user.do("GET", s.url+"/", nil, "X-Forwarded-For", forwarded).status
	}
	for i, c := range []struct {
		forwarded string
		want      int
	}{
		{"203.0.113.9", 200},
		{"1.1.1.1, 203.0.113.9", 200},
		{"2.2.2.2, 203.0.113.9", 429},
		{"203.0.113.10", 200},
		{"2001:db8::1", 200},
		{"2001:db8::2", 200},
		{"2001:db8::3", 429},
		{"2001:db8:0:1::3", 200},
	} {
		stack.Want(t, from(c.forwarded), c.want, "request %d, of %s", i, c.forwarded)
	}
}

// An upload's address has the host that its client used, if a trusted proxy forwards it.
func TestLocationBehindAProxy(t *testing.T) {
	t.Parallel()
	said := []string{"X-Forwarded-Host", "uploads.example.com", "X-Forwarded-Proto", "https", "Forwarded", "host=evil.example"}
	for networks, prefix := range map[string]string{"127.0.0.0/8": "https://uploads.example.com/api/uploads/", "10.0.0.0/8": ""} {
		s := newSite(t, behind(t, networks))
		if prefix == "" {
			prefix = s.user.uploads + "/"
		}
		headers := append([]string{"Upload-Metadata", metadata("client_id", "one", "filename", "a.jpg")}, said...)
		first := s.user.create(5, headers...)
		if !strings.HasPrefix(first, prefix) {
			t.Errorf("with proxies in %s an upload is at %s", networks, first)
		}
		stack.Want(t, s.user.create(5, headers...), first, "the same upload, with proxies in %s", networks)
	}
}
