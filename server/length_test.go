package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// chunked takes the Content-Length from a request.
func chunked(r *http.Request) *http.Request {
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(r.Body)), -1
	return r
}

// wantOpen checks that the upload has fewer than size bytes and no job.
func (s *site) wantOpen(t *testing.T, u user, url string, size int) {
	t.Helper()
	if got := u.upload(url); got.Status != "pending" && got.Status != "uploading" || got.Offset >= size {
		t.Errorf("%+v, want an upload that is not complete", got)
	}
	s.wantJobs(t, url, 0)
}

// A file that grew while it was sent is not cut and called complete: each request that brings more than Upload-Length is
// answered alike, however it is framed.
func TestBodyBeyondItsLength(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, size := range map[string]int{"small": 5, "parts": part + 1000} {
		data := noise(size + 3)
		short := strconv.Itoa(size)
		type call struct {
			creates bool
			request func(t *testing.T, u user) (r *http.Request, url string)
		}
		patch := func(headers ...string) call {
			return call{request: func(_ *testing.T, u user) (*http.Request, string) {
				url := u.create(size)
				return u.request("PATCH", url, reader(data), append([]string{"Upload-Offset", "0", "Content-Type", octets}, headers...)...), url
			}}
		}
		post := func(headers ...string) call {
			return call{true, func(_ *testing.T, u user) (*http.Request, string) {
				return u.request("POST", u.uploads, reader(data), append([]string{"Upload-Length", short, "Content-Type", octets}, headers...)...), ""
			}}
		}
		for kind, c := range map[string]call{
			"PATCH": patch(), "PATCH with checksum": patch("Upload-Checksum", sum("sha1", data)),
			"POST": post(), "POST with checksum": post("Upload-Checksum", sum("sha256", data)),
			"PATCH that declares the length": {request: func(t *testing.T, u user) (*http.Request, string) {
				url := u.do("POST", u.uploads, nil, "Upload-Defer-Length", "1").want(t, 201, "").header.Get("Location")
				return u.request("PATCH", url, reader(data), "Upload-Offset", "0", "Content-Type", octets, "Upload-Length", short), url
			}},
			"draft POST": {true, func(_ *testing.T, u user) (*http.Request, string) {
				return u.draft("6", "POST", u.uploads, data, "Upload-Complete", "?1", "Upload-Length", short), ""
			}},
			"draft POST of a piece": {true, func(_ *testing.T, u user) (*http.Request, string) {
				return u.draft("4", "POST", u.uploads, data, "Upload-Complete", "?0", "Upload-Length", short), ""
			}},
			"draft PATCH": {request: func(t *testing.T, u user) (*http.Request, string) {
				url := u.create(size)
				return u.draft("6", "PATCH", url, data, "Upload-Complete", "?1", "Upload-Offset", "0", "Content-Type", "application/partial-upload"), url
			}},
		} {
			for framing, as := range map[string]func(*http.Request) *http.Request{
				"length": func(r *http.Request) *http.Request { return r }, "chunked": chunked,
			} {
				t.Run(name+"/"+kind+"/"+framing, func(t *testing.T) {
					t.Parallel()
					u := s.newTenant(t)
					r, url := c.request(t, u)
					a := u.send(as(r)).want(t, 413, "beyond-length")
					switch named := a.header.Get("Location"); {
					case !c.creates:
						s.wantOpen(t, u, url, size)
					case named != "":
						s.wantOpen(t, u, named, size)
					default:
						s.wantCharged(t, u, 0)
					}
				})
			}
		}
	}
}

// A body without a Content-Length that has what Upload-Length says is taken.
func TestChunkedBodyOfItsLength(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	data := noise(part + 1000)
	url := u.create(len(data))
	u.send(chunked(u.request("PATCH", url, reader(data), "Upload-Offset", "0", "Content-Type", octets))).want(t, 204, "")
	wantWhole(t, u, url, data)
}

// A client that is gone before it could end its body has sent all bytes, and sends none of them again.
func TestBodyCutAtItsLength(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	data := noise(1000)
	url := u.create(len(data))
	body, client := io.Pipe()
	r := u.request("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets)
	failed := make(chan struct{})
	before := s.received(t)
	go func() {
		defer close(failed)
		if res, err := http.DefaultClient.Do(r); err == nil { //nolint:bodyclose // there is no answer
			t.Errorf("a cut request was answered with %s", res.Status)
		}
	}()
	_, err := client.Write(data)
	stack.Must(t, err)
	stack.Until(t, "the server has read it", func() bool { return s.received(t) >= before+1000 })
	_ = client.CloseWithError(io.ErrUnexpectedEOF) // never fails
	stack.Receive(t, "end of the request", failed)
	u.wantOffset(url, 1000)
	wantWhole(t, u, url, data)
}

// A length that is above what the installation or the company allows is refused as that (tus 1.0.0, Creation, Tus-Max-Size:
// MUST), whenever it is told.
func TestLengthAboveTheMaximum(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	deferred := u.do("POST", u.uploads, nil, "Upload-Defer-Length", "1").want(t, 201, "").header.Get("Location")
	small := s.newTenant(t)
	s.exec(t, `update tenants set max_upload_bytes = 1000 where id = $1`, small.who.Tenant)
	limited := small.do("POST", small.uploads, nil, "Upload-Defer-Length", "1", "Upload-Metadata", metadata("client_id", "one")).want(t, 201, "").header.Get("Location")
	for name, c := range map[string]struct {
		as      user
		method  string
		url     string
		headers []string
		most    int
	}{
		"PATCH of an unknown length":  {u, "PATCH", deferred, []string{"Upload-Length", fmt.Sprint(maxSize + 1)}, maxSize},
		"PATCH, beyond 64 bits":       {u, "PATCH", deferred, []string{"Upload-Length", strings.Repeat("9", 20)}, maxSize},
		"POST, beyond 64 bits":        {u, "POST", u.uploads, []string{"Upload-Length", strings.Repeat("9", 20)}, maxSize},
		"PATCH above the company's":   {small, "PATCH", limited, []string{"Upload-Length", "1001"}, 1000},
		"repeated creation, with one": {small, "POST", small.uploads, []string{"Upload-Length", "1001", "Upload-Metadata", metadata("client_id", "one")}, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.as.do(c.method, c.url, nil, append(c.headers, "Upload-Offset", "0", "Content-Type", octets)...)
			a.want(t, 413, "too-large").wantText(t, fmt.Sprintf(`"max_bytes":%d`, c.most))
		})
	}
	a := u.send(u.draft("6", "PATCH", deferred, nil, "Upload-Length", fmt.Sprint(maxSize+1), "Upload-Offset", "0",
		"Upload-Complete", "?0", "Content-Type", "application/partial-upload"))
	a.want(t, 413, "too-large")
	u.wantOffset(deferred, 0)
}

// A creation that is refused after its upload has begun tells where that is, or the upload is gone and costs nothing.
func TestRefusedCreationWithUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	data := noise(1000)
	wrong := []string{"Upload-Checksum", sum("sha1", noise(10))}
	named := []string{"Upload-Metadata", metadata("client_id", "one")}
	t.Run("nothing kept", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		a := u.do("POST", u.uploads, reader(data), append(wrong, "Upload-Length", "2000", "Content-Type", octets)...).want(t, 460, "body-mismatch")
		a.wantHeader(t, "Location", "")
		s.wantCharged(t, u, 0)
		s.wantCount(t, 0, `select count(*) from uploads where tenant_id = $1 and status in ('pending', 'uploading')`, u.who.Tenant)
	})
	t.Run("client id", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		a := u.do("POST", u.uploads, reader(data), append(append(wrong, named...), "Upload-Length", "1000", "Content-Type", octets)...).want(t, 460, "body-mismatch")
		a.wantHeader(t, "Upload-Offset", "0")
		u.patch(a.header.Get("Location"), 0, reader(data)).want(t, 204, "")
	})
	t.Run("client id, beyond its length", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		u.send(chunked(u.request("POST", u.uploads, reader(data), append(named, "Upload-Length", "999", "Content-Type", octets)...))).want(t, 413, "beyond-length")
		s.wantCharged(t, u, 0)
		a := u.do("POST", u.uploads, reader(data), append(named, "Upload-Length", "1000", "Content-Type", octets)...).want(t, 201, "")
		wantWhole(t, u, a.header.Get("Location"), data)
	})
	t.Run("above the maximum", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		s.exec(t, `update tenants set max_upload_bytes = 999 where id = $1`, u.who.Tenant)
		u.do("POST", u.uploads, reader(data), "Upload-Defer-Length", "1", "Content-Type", octets).want(t, 413, "too-large").wantText(t, `"max_bytes":999`)
		s.wantCharged(t, u, 0)
		a := u.send(chunked(u.request("POST", u.uploads, reader(data), "Upload-Defer-Length", "1", "Content-Type", octets))).want(t, 413, "too-large")
		a.wantHeader(t, "Upload-Offset", "999")
		u.wantOffset(a.header.Get("Location"), 999)
	})
	t.Run("taken over", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		body, client := io.Pipe()
		r := u.request("POST", u.uploads, body, "Upload-Length", "1000", "Content-Type", octets)
		answered := make(chan answer, 1)
		go func() { answered <- u.send(r) }()
		_, err := client.Write(data[:600])
		stack.Must(t, err)
		stack.Until(t, "upload", func() bool { return s.count(t, `select count(*) from uploads where tenant_id = $1`, u.who.Tenant) == 1 })
		url := u.uploads + "/" + value[string](t, s, `select id::text from uploads where tenant_id = $1`, u.who.Tenant)
		stack.Until(t, "checkpoint", func() bool { return u.upload(url).Offset == 600 })
		u.wantOffset(url, 600) // asks the creation to let go
		a := stack.Receive(t, "answer", answered)
		a.want(t, 423, "busy").wantHeader(t, "Location", url)
		a.wantHeader(t, "Upload-Offset", "600")
		stack.Must(t, client.Close())
		u.patch(url, 600, reader(data[600:])).want(t, 204, "")
		wantWhole(t, u, url, data)
	})
	t.Run("draft", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		s.exec(t, `update tenants set max_upload_bytes = 999 where id = $1`, u.who.Tenant)
		a, told := u.sendDraft(chunked(u.draft("6", "POST", u.uploads, data, "Upload-Complete", "?1")))
		a.want(t, 413, "too-large").wantHeader(t, "Location", told)
		a.wantHeader(t, "Upload-Offset", "999")
	})
}
