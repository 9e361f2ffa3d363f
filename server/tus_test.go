package server_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// tus 1.0.0, MUST by MUST; each test is named after its section. Those of Creation's metadata, of Checksum and of
// Expiration are in files of their own.

func TestTusHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	url := u.create(10)
	investor := s.as(t, tenant.Identity{Tenant: u.who.Tenant, User: "eva", Role: tenant.Inversionista})
	nobody := u
	nobody.token = "none"
	post := []string{"Upload-Length", "5"}
	write := []string{"Upload-Offset", "0", "Content-Type", octets}
	for name, c := range map[string]struct {
		as      user
		method  string
		url     string
		headers []string
		status  int
	}{
		"Upload-Offset, negative":          {u, "PATCH", url, []string{"Upload-Offset", "-1", "Content-Type", octets}, 400},
		"Upload-Offset, signed":            {u, "PATCH", url, []string{"Upload-Offset", "+0", "Content-Type", octets}, 400},
		"Upload-Offset, hexadecimal":       {u, "PATCH", url, []string{"Upload-Offset", "0x0", "Content-Type", octets}, 400},
		"Upload-Offset, beyond 64 bits":    {u, "PATCH", url, []string{"Upload-Offset", "99999999999999999999", "Content-Type", octets}, 400},
		"Upload-Length, signed":            {u, "POST", u.uploads, []string{"Upload-Length", "+5"}, 400},
		"Upload-Length, a fraction":        {u, "POST", u.uploads, []string{"Upload-Length", "5.0"}, 400},
		"Tus-Resumable, none":              {u, "POST", u.uploads, append(post, "Tus-Resumable", ""), 412},
		"Tus-Resumable, other, POST":       {u, "POST", u.uploads, append(post, "Tus-Resumable", "0.2.2"), 412},
		"Tus-Resumable, other, HEAD":       {u, "HEAD", url, []string{"Tus-Resumable", "0.2.2"}, 412},
		"Tus-Resumable, other, PATCH":      {u, "PATCH", url, append(write, "Tus-Resumable", "2.0.0"), 412},
		"Tus-Resumable, other, DELETE":     {u, "DELETE", url, []string{"Tus-Resumable", "2.0.0"}, 412},
		"Tus-Resumable, no token":          {nobody, "PATCH", url, write, 401},
		"Tus-Resumable, no token, HEAD":    {nobody, "HEAD", url, nil, 401},
		"Tus-Resumable, not allowed":       {investor, "PATCH", url, write, 403},
		"Tus-Resumable, method":            {u, "POST", url, post, 405},
		"Tus-Max-Size, exceeded":           {u, "POST", u.uploads, []string{"Upload-Length", fmt.Sprint(maxSize + 1)}, 413},
		"HEAD, not found":                  {u, "HEAD", u.uploads + "/" + uuid.NewString(), nil, 404},
		"HEAD, no id":                      {u, "HEAD", u.uploads + "/nonsense", nil, 404},
		"PATCH, not found":                 {u, "PATCH", u.uploads + "/" + uuid.NewString(), write, 404},
		"PATCH, content type":              {u, "PATCH", url, []string{"Upload-Offset", "0", "Content-Type", "image/png"}, 415},
		"PATCH, no content type":           {u, "PATCH", url, []string{"Upload-Offset", "0"}, 415},
		"PATCH, no offset":                 {u, "PATCH", url, []string{"Content-Type", octets}, 400},
		"PATCH, offset ahead":              {u, "PATCH", url, []string{"Upload-Offset", "5", "Content-Type", octets}, 409},
		"DELETE, not found":                {u, "DELETE", u.uploads + "/" + uuid.NewString(), nil, 404},
		"Upload-Metadata, no key":          {u, "POST", u.uploads, append(post, "Upload-Metadata", "a YQ==,"), 400},
		"Upload-Metadata, key twice":       {u, "POST", u.uploads, append(post, "Upload-Metadata", "a YQ==,a Yg=="), 400},
		"Upload-Metadata, not Base64":      {u, "POST", u.uploads, append(post, "Upload-Metadata", "a ?"), 400},
		"Upload-Checksum, algorithm":       {u, "PATCH", url, append(write, "Upload-Checksum", "md5 XUFAKrxLKna5cZ2REBfFkg=="), 400},
		"Upload-Checksum, does not match":  {u, "PATCH", url, append(write, "Upload-Checksum", sum("sha1", []byte("other"))), 460},
		"Upload-Defer-Length, not 1":       {u, "POST", u.uploads, []string{"Upload-Defer-Length", "2"}, 400},
		"Creation, no length":              {u, "POST", u.uploads, nil, 400},
		"Creation, both lengths":           {u, "POST", u.uploads, append(post, "Upload-Defer-Length", "1"), -1}, // 400 or 501
		"X-HTTP-Method-Override, no route": {u, "POST", url, []string{"X-HTTP-Method-Override", "BREW"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var body io.Reader
			if c.method == "PATCH" {
				body = strings.NewReader("x")
			}
			a := c.as.do(c.method, c.url, body, c.headers...)
			if c.status != -1 {
				a.want(t, c.status, "")
			} else if a.status < 400 {
				t.Errorf("%d", a.status)
			}
			if !strings.Contains(name, "no route") {
				a.wantHeader(t, "Tus-Resumable", "1.0.0") // Tus-Resumable: in every response
			}
			if a.status == 412 {
				a.wantHeader(t, "Tus-Version", "1.0.0")
			}
			if c.method == "HEAD" {
				a.wantHeader(t, "Cache-Control", "no-store")
				a.wantHeader(t, "Upload-Offset", "")
			}
		})
	}
	r := u.request("PATCH", url, strings.NewReader("x"), "Content-Type", octets)
	r.Header["Upload-Offset"] = []string{"0", "5"}
	u.send(r).want(t, 400, "upload-offset")
	u.wantOffset(url, 0)
}

func TestTusHead(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	url := u.create(10, "Upload-Metadata", metadata("filename", "ñ.txt", "own", "\n,")+",flag")
	for _, offset := range []string{"0", "4", "10"} {
		a := u.do("HEAD", url, nil).want(t, 200, "")
		a.wantHeader(t, "Upload-Offset", offset)
		a.wantHeader(t, "Upload-Length", "10")
		a.wantHeader(t, "Cache-Control", "no-store")
		a.wantHeader(t, "Tus-Resumable", "1.0.0")
		a.wantHeader(t, "Content-Length", "") // it would be the length of GET's body (RFC 9110, section 8.6)
		a.wantHeader(t, "Upload-Metadata", "filename w7EudHh0,own Ciw=,flag")
		switch offset {
		case "0":
			u.patch(url, 0, strings.NewReader("four"))
		case "4":
			u.patch(url, 4, strings.NewReader("sixsix"))
		}
	}
}

func TestTusPatch(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	url := u.create(10)
	a := u.patch(url, 0, strings.NewReader("four")).want(t, 204, "")
	a.wantHeader(t, "Upload-Offset", "4")
	u.patch(url, 4, strings.NewReader("sevenbs")).want(t, 413, "beyond-length")
	a = u.patch(url, 4, strings.NewReader("")).want(t, 204, "")
	a.wantHeader(t, "Upload-Offset", "4")
	a = u.patch(url, 4, strings.NewReader("sixsix")).want(t, 204, "")
	a.wantHeader(t, "Upload-Offset", "10")
	a = u.patch(url, 10, strings.NewReader("")) // the upload is complete and does not change
	a.want(t, 204, "")
	a.wantHeader(t, "Upload-Offset", "10")
	u.patch(url, 4, strings.NewReader("sixsix")).want(t, 409, "offset-mismatch")
	wantWhole(t, u, url, []byte("foursixsix"))
}

// The header is the method, whatever was sent; the connection goes on.
func TestTusMethodOverride(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	url := u.create(10)
	a := u.do("POST", url, strings.NewReader("hello"), "X-HTTP-Method-Override", "PATCH", "Upload-Offset", "0", "Content-Type", octets).want(t, 204, "")
	a.wantHeader(t, "Upload-Offset", "5")
	a = u.do("POST", url, nil, "X-HTTP-Method-Override", "HEAD").want(t, 200, "")
	a.wantHeader(t, "Upload-Offset", "5")
	u.do("POST", url+"0", nil, "X-HTTP-Method-Override", "HEAD").want(t, 404, "")
	u.do("GET", url, nil, "X-HTTP-Method-Override", "PATCH", "Upload-Offset", "3", "Content-Type", octets).want(t, 409, "offset-mismatch")
	if a = u.do("POST", url, nil, "X-HTTP-Method-Override", "GET"); !strings.Contains(string(a.body), `"offset":5`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	u.do("POST", url, nil, "X-HTTP-Method-Override", "DELETE").want(t, 204, "")
	u.do("HEAD", url, nil).want(t, 410, "")
}

func TestTusTermination(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	url := u.create(10)
	u.patch(url, 0, strings.NewReader("hello")).want(t, 204, "")
	a := u.do("DELETE", url, nil).want(t, 204, "")
	a.wantHeader(t, "Tus-Resumable", "1.0.0")
	u.do("HEAD", url, nil).want(t, 410, "")
	u.patch(url, 5, strings.NewReader("hello")).want(t, 410, "gone")
	u.do("DELETE", url, nil).want(t, 410, "gone")
}

// OPTIONS needs neither a token nor Tus-Resumable, and tells exactly the extensions that work: each is tried.
func TestTusOptions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", u.uploads, nil)
	stack.Must(t, err)
	r.Header.Set("Tus-Resumable", "0.2.2") // to be ignored
	a := u.send(r).want(t, 204, "")
	a.wantHeader(t, "Tus-Version", "1.0.0")
	a.wantHeader(t, "Tus-Resumable", "1.0.0")
	a.wantHeader(t, "Tus-Max-Size", fmt.Sprint(maxSize))
	a.wantHeader(t, "Tus-Checksum-Algorithm", "sha1,sha256,crc32")
	a.wantHeader(t, "Upload-Limit", fmt.Sprintf("min-size=1,max-size=%d", maxSize))
	if b := u.do("OPTIONS", u.uploads+"/"+uuid.NewString(), nil); b.header.Get("Tus-Extension") != a.header.Get("Tus-Extension") {
		t.Errorf("an upload has the extensions %q", b.header.Get("Tus-Extension"))
	}

	post := func(headers ...string) answer { return u.do("POST", u.uploads, nil, headers...) }
	var works []string
	for extension, try := range map[string]func() bool{
		"creation": func() bool { return post("Upload-Length", "5").status == 201 },
		"creation-with-upload": func() bool {
			a := u.do("POST", u.uploads, strings.NewReader("hello"), "Upload-Length", "5", "Content-Type", octets)
			return a.header.Get("Upload-Offset") == "5"
		},
		"creation-defer-length": func() bool { return post("Upload-Defer-Length", "1").status == 201 },
		"termination":           func() bool { return u.do("DELETE", u.create(5), nil).status == 204 },
		"checksum": func() bool {
			return u.patch(u.create(5), 0, strings.NewReader("hello"), "Upload-Checksum", sum("crc32", []byte("hallo"))).status == 460
		},
		"checksum-trailer": func() bool {
			return s.trailing(t, u.create(5), []byte("hello"), sum("crc32", []byte("hallo"))).status == 460
		},
		"expiration": func() bool { return post("Upload-Length", "5").header.Get("Upload-Expires") != "" },
		"concatenation": func() bool {
			a := post("Upload-Concat", "partial", "Upload-Length", "5")
			return u.do("HEAD", a.header.Get("Location"), nil).header.Get("Upload-Concat") == "partial"
		},
		"concatenation-unfinished": func() bool {
			a := post("Upload-Concat", "partial", "Upload-Length", "5")
			final := post("Upload-Concat", "final;"+a.header.Get("Location"))
			return final.status == 201
		},
	} {
		if try() {
			works = append(works, extension)
		}
	}
	told := strings.Split(a.header.Get("Tus-Extension"), ",")
	slices.Sort(told)
	slices.Sort(works)
	stack.Want(t, told, works, "extensions in OPTIONS, which must be those that work")
}
