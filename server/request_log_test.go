package server_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Each request is logged in one line with its user, route, status and ids, and without anything that a person sent: no
// file name, no query, no token.
func TestRequestLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	line := func(id string) string {
		var found []string
		for l := range strings.Lines(s.log.String()) {
			if strings.Contains(l, "request_id="+id+" ") {
				found = append(found, l)
			}
		}
		if len(found) != 1 {
			t.Errorf("request %s has %d lines: %q", id, len(found), found)
			return ""
		}
		return found[0]
	}
	says := func(id string, words ...string) {
		t.Helper()
		for l := line(id); len(words) > 0; words = words[1:] {
			if !strings.Contains(l, " "+words[0]+" ") {
				t.Errorf("%q does not say %s", l, words[0])
			}
		}
	}
	a := s.user.do("POST", s.uploads(), strings.NewReader("hello"), "Upload-Length", "10", "Content-Type", octets,
		"Upload-Metadata", metadata("filename", "secreto.jpg"), "X-Request-Id", "create-1").want(t, 201, "")
	says("create-1", "level=INFO", "msg=request", "method=POST", "route=/api/uploads", "status=201", "bytes_in=5", "bytes_out=0",
		"tenant_id="+s.user.who.Tenant.String(), "client_address=127.0.0.1")
	if !strings.Contains(line("create-1"), "user_id="+s.user.who.User+"\n") {
		t.Errorf("%q does not say who", line("create-1"))
	}
	s.user.patch(a.header.Get("Location"), 7, strings.NewReader("hello"), "X-Request-Id", "patch-1").want(t, 409, "offset-mismatch")
	says("patch-1", "level=INFO", "route=/api/uploads/:id", "status=409")
	nobody := s.user
	nobody.token = "eyJsecreto"
	nobody.do("DELETE", s.uploads()+"/"+uuid.NewString()+"?q=secreto", nil, "X-Request-Id", "anon-1").want(t, 401, "unauthorized")
	says("anon-1", "status=401")
	if l := line("anon-1"); strings.Contains(l, "tenant_id") {
		t.Errorf("%q names a tenant that no token named", l)
	}
	if strings.Contains(s.log.String(), "secreto") {
		t.Errorf("the log tells what it must not:\n%s", s.log)
	}
	s.user.do("GET", s.uploads(), nil, "X-Request-Id", "read-1").want(t, 200, "")
	if strings.Contains(s.log.String(), "read-1") {
		t.Error("a request that only reads is logged at Info")
	}
}
