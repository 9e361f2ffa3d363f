package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
)

// Unknown paths and methods are answered with problems everywhere: with the id of the request and, for a method, the
// methods that the path has.
func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one := "/api/uploads/" + uuid.NewString()
	for _, c := range []struct {
		method, path, problem string
		status                int
		allow                 string // one of those that must be told
	}{
		{"GET", "/nothing", "not-found", 404, ""},
		{"GET", "/assets/nothing.js", "not-found", 404, ""},
		{"GET", "/api", "not-found", 404, ""},
		{"GET", "/api/", "not-found", 404, ""},
		{"GET", "/api/nothing", "not-found", 404, ""},
		{"PUT", "/api/nothing", "not-found", 404, ""},
		{"GET", "/problems/nothing", "not-found", 404, ""},
		{"GET", one + "/nothing", "not-found", 404, ""},
		{"GET", one, "not-found", 404, ""},
		{"PUT", one, "method-not-allowed", 405, "PATCH"},
		{"PUT", "/api/uploads", "method-not-allowed", 405, "POST"},
		{"PATCH", "/api/uploads", "method-not-allowed", 405, "POST"},
		{"POST", one, "method-not-allowed", 405, "PATCH"},
		{"DELETE", one + "/content", "method-not-allowed", 405, "GET"},
		{"POST", one + "/timeline", "method-not-allowed", 405, "GET"},
		{"POST", "/", "method-not-allowed", 405, "GET"},
		{"DELETE", "/problems/not-found", "method-not-allowed", 405, "GET"},
		{"POST", "/.well-known/jwks.json", "method-not-allowed", 405, "GET"},
	} {
		a := s.user.do(c.method, s.url+c.path, nil).want(t, c.status, c.problem)
		if !strings.Contains(a.header.Get("Allow"), c.allow) {
			t.Errorf("%s %s: Allow is %q, without %s", c.method, c.path, a.header.Get("Allow"), c.allow)
		}
		var p struct {
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(a.body, &p); err != nil || p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") {
			t.Errorf("%s %s: request_id %q, X-Request-Id %q, %v", c.method, c.path, p.RequestID, a.header.Get("X-Request-Id"), err)
		}
		if got := a.header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s %s: Content-Type %q", c.method, c.path, got)
		}
	}
}

// Every answer has the security headers; those of a page allow what the page needs.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for path, policy := range map[string]string{
		"/api/uploads":                     "default-src 'none'; base-uri",
		"/api/uploads/" + uuid.NewString(): "default-src 'none'; base-uri",
		"/nothing":                         "default-src 'none'; base-uri",
		"/problems/not-found":              "default-src 'none'; style-src 'sha256-",
		"/.well-known/jwks.json":           "default-src 'none'; base-uri",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			a := s.user.do(method, s.url+path, nil)
			if got := a.header.Get("Content-Security-Policy"); method == http.MethodGet && !strings.HasPrefix(got, policy) || !strings.Contains(got, "frame-ancestors 'none'") {
				t.Errorf("%s %s: Content-Security-Policy %q", method, path, got)
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
				"Strict-Transport-Security": "",
			} {
				a.wantHeader(t, name, want)
			}
			if !strings.Contains(a.header.Get("Permissions-Policy"), "geolocation=()") {
				t.Errorf("%s %s: Permissions-Policy %q", method, path, a.header.Get("Permissions-Policy"))
			}
		}
	}
}

// A server whose public URL is https sets Strict-Transport-Security; one on a laptop does not.
func TestTransportSecurity(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.PublicURL = "https://uploads.example.com" })
	s.user.do("GET", s.uploads(), nil).wantHeader(t, "Strict-Transport-Security", "max-age=31536000")
}
