package server_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
)

// A page of an allowed origin may send every method with any header, and read every answer with its headers, errors
// included. A page of another origin may not. Cookies are never allowed.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	const ours, theirs = "https://app.example.com", "https://evil.example.com"
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.CORSOrigins = []string{ours} })
	one := s.url + server.UploadsPath + "/" + uuid.NewString()
	for _, c := range []struct{ method, url string }{
		{"POST", s.uploads()}, {"HEAD", one}, {"PATCH", one}, {"DELETE", one}, {"GET", one + "/receipt"}, {"GET", s.url + "/api/nothing"},
	} {
		a := s.user.do("OPTIONS", c.url, nil, "Authorization", "", "Origin", ours, "Access-Control-Request-Method", c.method,
			"Access-Control-Request-Headers", "authorization,idempotency-key,tus-resumable,upload-checksum,upload-offset,x-anything").want(t, 204, "")
		a.wantHeader(t, "Access-Control-Allow-Origin", ours)
		a.wantHeader(t, "Access-Control-Allow-Credentials", "")
		if !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), c.method) || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "x-anything") {
			t.Errorf("%s %s: %v", c.method, c.url, a.header)
		}
		a = s.user.do("OPTIONS", c.url, nil, "Authorization", "", "Origin", theirs, "Access-Control-Request-Method", c.method)
		a.wantHeader(t, "Access-Control-Allow-Origin", "")
	}
	nobody := s.user
	nobody.token = ""
	for name, a := range map[string]answer{
		"200": s.user.do("GET", s.uploads(), nil, "Origin", ours),
		"201": s.user.do("POST", s.uploads(), nil, "Upload-Length", "5", "Origin", ours),
		"401": nobody.do("GET", s.uploads(), nil, "Origin", ours),
		"404": s.user.do("GET", one, nil, "Origin", ours),
		"405": s.user.do("PUT", one, nil, "Origin", ours),
		"412": s.user.do("HEAD", one, nil, "Origin", ours, "Tus-Resumable", "9"),
		"413": s.user.do("POST", s.uploads(), nil, "Upload-Length", "99999999999", "Origin", ours),
	} {
		if a.wantHeader(t, "Access-Control-Allow-Origin", ours); !slices.Contains(a.header.Values("Vary"), "Origin") {
			t.Errorf("%s: Vary is %q", name, a.header.Values("Vary"))
		}
		exposed := strings.ToLower(a.header.Get("Access-Control-Expose-Headers"))
		for _, want := range []string{"location", "upload-offset", "upload-expires", "retry-after", "ratelimit", "x-request-id", "traceresponse", "tus-max-size"} {
			if !strings.Contains(exposed, want) {
				t.Errorf("%s: %s is not exposed", name, want)
			}
		}
	}
	// An OPTIONS request of tus is no preflight, and is answered as without CORS.
	s.user.do("OPTIONS", s.uploads(), nil, "Origin", ours).wantHeader(t, "Tus-Max-Size", "67108864")
	s.user.do("GET", s.uploads(), nil, "Origin", theirs).wantHeader(t, "Access-Control-Allow-Origin", "")
}

// By default no other origin is allowed.
func TestNoCrossOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, method := range []string{"OPTIONS", "GET"} {
		a := s.user.do(method, s.uploads(), nil, "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST")
		a.wantHeader(t, "Access-Control-Allow-Origin", "")
	}
	all := newSite(t, func(c *server.Config, _ *server.Parts) { c.CORSOrigins = []string{"*"} })
	all.user.do("GET", all.uploads(), nil, "Origin", "https://any.example.com").wantHeader(t, "Access-Control-Allow-Origin", "*")
}
