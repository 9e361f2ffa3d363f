package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// draft makes a request as the IETF draft has it.
func (u user) draft(version, method, url string, body []byte, headers ...string) *http.Request {
	u.t.Helper()
	return u.request(method, url, reader(body), append([]string{
		"Tus-Resumable", "", "Upload-Draft-Interop-Version", version,
	}, headers...)...)
}

// sendDraft also returns the address that an interim answer tells, if one does.
func (u user) sendDraft(r *http.Request) (a answer, told string) {
	u.t.Helper()
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code != 104 || h.Get("Upload-Draft-Interop-Version") != r.Header.Get("Upload-Draft-Interop-Version") {
			u.t.Errorf("interim answer %d %v", code, h)
		}
		stack.Want(u.t, h.Get("Tus-Resumable"), "", "Tus-Resumable of an interim answer")
		told = h.Get("Location")
		return nil
	}}
	a = u.send(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	for name := range a.header {
		if strings.HasPrefix(name, "Tus-") {
			u.t.Errorf("%s %s: answer %d has %s", r.Method, r.URL, a.status, name)
		}
	}
	return a, told
}

// complete is how a version says whether an upload is complete.
func complete(version string, yes bool) []string {
	if version == "3" {
		return []string{"Upload-Incomplete", map[bool]string{true: "?0", false: "?1"}[yes]}
	}
	return []string{"Upload-Complete", map[bool]string{true: "?1", false: "?0"}[yes]}
}

func eachVersion(t *testing.T, do func(t *testing.T, u user, version string)) {
	s := newSite(t)
	for _, version := range []string{"3", "4", "5", "6"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			u := s.user
			u.t = t
			do(t, u, version)
		})
	}
}

// One request: the 104 tells where the upload is, the final answer that it is complete. Name and type are those
// of the representation.
func TestDraftInOneRequest(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, u user, version string) {
		data := noise(part + 1000)
		yes := complete(version, true)
		a, told := u.sendDraft(u.draft(version, "POST", u.uploads, data, append(yes,
			"Content-Type", "image/png", "Content-Disposition", `attachment; filename*=UTF-8''ca%C3%B1a.png`)...))
		a.want(t, 201, "")
		a.wantHeader(t, "Upload-Offset", strconv.Itoa(len(data)))
		a.wantHeader(t, yes[0], yes[1])
		if told == "" || told != a.header.Get("Location") {
			t.Errorf("the interim answer tells %q, the final one %q", told, a.header.Get("Location"))
		}
		wantWhole(t, u, told, data)
		if got := u.upload(told); got.Filename != "caña.png" || got.Type != "image/png" {
			t.Errorf("%+v", got)
		}
	})
}

// The upload is resumed where HEAD tells, and complete when its client says so.
func TestDraftResumed(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, u user, version string) {
		data := noise(3000)
		yes, no := complete(version, true), complete(version, false)
		a, url := u.sendDraft(u.draft(version, "POST", u.uploads, data[:1000], append(no, "Upload-Length", "3000")...))
		a.want(t, 201, "")
		a.wantHeader(t, no[0], no[1])
		a.wantHeader(t, "Upload-Offset", "1000")
		patch := func(offset int, body []byte, headers ...string) answer {
			a, _ := u.sendDraft(u.draft(version, "PATCH", url, body, append(headers,
				"Content-Type", "application/partial-upload", "Upload-Offset", strconv.Itoa(offset))...))
			return a
		}
		head := func() answer {
			a, _ := u.sendDraft(u.draft(version, "HEAD", url, nil))
			a.want(t, 204, "")
			a.wantHeader(t, "Cache-Control", "no-store")
			a.wantHeader(t, "Upload-Length", "3000")
			return a
		}
		a = head()
		a.wantHeader(t, "Upload-Offset", "1000")
		a.wantHeader(t, no[0], no[1])

		a = patch(500, data[500:], yes...).want(t, 409, "offset-mismatch")
		a.wantHeader(t, "Upload-Offset", "1000")
		a = patch(1000, data[1000:2000], no...).want(t, 201, "")
		a.wantHeader(t, "Upload-Offset", "2000")
		a.wantHeader(t, no[0], no[1])

		// A request that declares an incomplete upload complete must not succeed.
		a = patch(2000, data[2000:2500], yes...).want(t, 400, "upload-length")
		a.wantHeader(t, "Upload-Offset", "2500")
		head().wantHeader(t, no[0], no[1])

		a = patch(2500, data[2500:], yes...).want(t, 201, "")
		a.wantHeader(t, yes[0], yes[1])
		a = head()
		a.wantHeader(t, "Upload-Offset", "3000")
		a.wantHeader(t, yes[0], yes[1])
		wantWhole(t, u, url, data)
	})
}

func TestDraftRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	investor := s.as(t, tenant.Identity{Tenant: u.who.Tenant, User: "eva", Role: tenant.Inversionista})
	stranger := s.newTenant(t)
	nobody := u
	nobody.token = "none"
	whole := []string{"Upload-Complete", "?1", "Content-Type", "image/png"}
	_, url := u.sendDraft(u.draft("6", "POST", u.uploads, []byte("hello"), "Upload-Complete", "?0", "Upload-Length", "10"))
	for name, c := range map[string]struct {
		as      user
		method  string
		url     string
		body    string
		headers []string
		status  int
		problem string
	}{
		"not signed in":       {nobody, "POST", u.uploads, "x", whole, 401, "unauthorized"},
		"investor":            {investor, "POST", u.uploads, "x", whole, 403, "forbidden"},
		"empty":               {u, "POST", u.uploads, "", whole, 422, "empty"},
		"type":                {u, "POST", u.uploads, "x", []string{"Upload-Complete", "?1", "Content-Type", "text/html"}, 415, "type-not-allowed"},
		"type is none":        {u, "POST", u.uploads, "x", []string{"Upload-Complete", "?1", "Content-Type", ";"}, 400, "bad-metadata"},
		"disposition is none": {u, "POST", u.uploads, "x", []string{"Upload-Complete", "?1", "Content-Disposition", "a; b"}, 400, "bad-metadata"},
		"too large":           {u, "POST", u.uploads, "x", []string{"Upload-Complete", "?0", "Upload-Length", fmt.Sprint(maxSize + 1)}, 413, "too-large"},
		"negative":            {u, "POST", u.uploads, "x", []string{"Upload-Complete", "?0", "Upload-Length", "-1"}, 400, "upload-length"},
		"two lengths":         {u, "POST", u.uploads, "x", []string{"Upload-Complete", "?1", "Upload-Length", "2"}, 400, "upload-length"},
		"another's":           {stranger, "PATCH", url, "x", []string{"Content-Type", "application/partial-upload", "Upload-Offset", "5"}, 404, "not-found"},
		"patch of tus":        {u, "PATCH", url, "x", []string{"Content-Type", octets, "Upload-Offset", "5"}, 415, "content-type"},
		"beyond":              {u, "PATCH", url, "123456", []string{"Content-Type", "application/partial-upload", "Upload-Offset", "5"}, 413, "beyond-length"},
		"head with offset":    {u, "HEAD", url, "", []string{"Upload-Offset", "5"}, 400, ""},
		"delete, complete":    {u, "DELETE", url, "", []string{"Upload-Complete", "?1"}, 400, "draft-header"},
	} {
		t.Run(name, func(t *testing.T) {
			c.as.t = t
			a, told := c.as.sendDraft(c.as.draft("6", c.method, c.url, []byte(c.body), c.headers...))
			a.want(t, c.status, c.problem)
			stack.Want(t, told, "", "what an interim answer tells")
		})
	}
	a, _ := u.sendDraft(u.draft("6", "DELETE", url, nil))
	a.want(t, 204, "")
	a, _ = u.sendDraft(u.draft("6", "HEAD", url, nil))
	a.want(t, 410, "")

	// A version that is not supported gets no interim answer and creates no upload.
	r := u.draft("9", "POST", u.uploads, []byte("hello"), whole...)
	a = u.send(r).want(t, 412, "tus-version")
	if !bytes.Contains(a.body, []byte("Upload-Draft-Interop-Version")) {
		t.Errorf("%s", a.body)
	}
}

// The metrics have the final status, not the interim one.
func TestDraftIsMeasured(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, told := s.user.sendDraft(s.user.draft("6", "POST", s.user.uploads, []byte("hello"), "Upload-Complete", "?1"))
	a.want(t, 201, "")
	if told == "" {
		t.Fatal("no interim answer")
	}
	var codes []string
	families, err := s.registry.Gather()
	stack.Must(t, err)
	for _, f := range families {
		if f.GetName() != "tramo_http_request_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "code" {
					codes = append(codes, l.GetValue())
				}
			}
		}
	}
	if len(codes) != 1 || codes[0] != "201" {
		t.Errorf("codes %v", codes)
	}
}
