package server_test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// begun is a body that has begun with these bytes, filled up to 8 KiB, and goes on only after the test.
func begun(t *testing.T, begin string) io.Reader {
	t.Helper()
	rest, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	return io.MultiReader(strings.NewReader(begin+strings.Repeat("\x00", 8<<10-len(begin))), rest)
}

const program = "MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xFF\xFF"

// What is plainly not accepted is refused at its first kilobytes, by each protocol, while the rest has not been sent: the upload has
// ended, nothing of it is stored, and nothing charged.
func TestRefusedAtItsFirstBytes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	begin := func(u user, method, url string, body io.Reader, headers ...string) answer {
		r := u.request(method, url, body, headers...)
		r.ContentLength = 10_000_000
		return u.send(r)
	}
	for name, send := range map[string]func(t *testing.T, u user, body io.Reader) (a answer, url string){
		"creation with upload": func(_ *testing.T, u user, body io.Reader) (answer, string) {
			return begin(u, "POST", u.uploads, body, "Upload-Length", "10000000", "Content-Type", octets, "Upload-Metadata", metadata("filetype", "image/jpeg")), ""
		},
		"PATCH": func(t *testing.T, u user, body io.Reader) (answer, string) {
			url := u.create(10_000_000)
			return begin(u, "PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets), url
		},
		"PATCH of unknown length": func(t *testing.T, u user, body io.Reader) (answer, string) {
			url := u.do("POST", u.uploads, nil, "Upload-Defer-Length", "1").want(t, 201, "").header.Get("Location")
			return begin(u, "PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets), url
		},
		"draft": func(_ *testing.T, u user, body io.Reader) (answer, string) {
			return begin(u, "POST", u.uploads, body, "Tus-Resumable", "", "Upload-Draft-Interop-Version", "6", "Upload-Complete", "?1"), ""
		},
		"form": func(_ *testing.T, u user, body io.Reader) (answer, string) {
			fields := field("client_id", "a") + strings.TrimSuffix(field(`file; filename="a.jpg"`, ""), "\r\n")
			return begin(u, "POST", u.uploads, io.MultiReader(strings.NewReader(fields), body), "Tus-Resumable", "", "Content-Type", "multipart/form-data; boundary="+boundary), ""
		},
	} {
		for kind, first := range map[string]string{"a program": program, "a script": "#!/usr/bin/awk -f\n", "a film": "\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				u := s.newTenant(t)
				if kind == "a script" {
					first += strings.Repeat("# hormigon\n", 1000)[:8<<10-len(first)] // text to its end
				}
				a, url := send(t, u, begun(t, first))
				a.want(t, http.StatusUnsupportedMediaType, "type-not-allowed")
				s.wantCount(t, 1, `select count(*) from uploads where tenant_id = $1 and status = 'failed' and failure_reason = 'type_not_allowed'`, u.who.Tenant)
				s.wantCharged(t, u, 0)
				s.wantCount(t, 0, `select count(*) from contents c where tenant_id = $1 and (received > 0 or multipart_id is not null or object_key is not null)`, u.who.Tenant)
				s.wantCount(t, 0, `select count(*) from tails where tenant_id = $1`, u.who.Tenant)
				if url != "" {
					u.do("HEAD", url, nil).want(t, http.StatusGone, "")
					u.do("PATCH", url, bytes.NewReader([]byte("x")), "Upload-Offset", "0", "Content-Type", octets).want(t, http.StatusGone, "gone")
				}
			})
		}
	}
}

// The first bytes of a slow client become durable in time, like all others, although they do not say yet what the file is. When they
// do, the upload is refused, and nothing of them is kept.
func TestFirstBytesOfASlowClient(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.newTenant(t)
	url := u.create(10_000_000)
	body, client := io.Pipe()
	t.Cleanup(func() { _ = client.Close() })
	answered := make(chan answer, 1)
	go func() {
		answered <- u.do("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets)
	}()
	received := `select received from contents where tenant_id = $1`
	for at := 0; at < 4000; at += 1000 { // a kilobyte, a checkpoint, and so on
		_, err := client.Write([]byte(program + strings.Repeat("\x00", 1000-len(program))))
		stack.Must(t, err)
		stack.Until(t, "checkpoint", func() bool { return s.count(t, received, u.who.Tenant) == at+1000 })
	}
	_, _ = client.Write(make([]byte, 1000)) // fails if the answer was faster
	stack.Receive(t, "answer", answered).want(t, http.StatusUnsupportedMediaType, "type-not-allowed")
	s.wantCharged(t, u, 0)
	s.wantCount(t, 0, `select count(*) from tails where tenant_id = $1`, u.who.Tenant)
}

// What may still be accepted goes on: its first bytes say too little, they are few, or they are not the file's first.
func TestFirstBytesThatSayTooLittle(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pad := strings.Repeat("\x00", 20<<10)
	for name, content := range map[string]string{
		"a Java program, perhaps": "PK\x03\x04\x14\x00\x00\x00\x08\x00" + pad[:16] + "\x14\x00\x00\x00META-INF/MANIFEST.MF" + pad,
		"a photo":                 string(stack.Photo(stack.PhotoConfig{Width: 640, Height: 480})),
		"an archive":              "PK\x03\x04" + pad,
		"a compound file":         "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1" + pad,
		"a TIFF":                  "II*\x00\xFF\xFF\x00\x00" + pad,
		"a text of another kind":  `{"a": "` + strings.Repeat("hormigón ", 1000) + `"}`,
		"what nobody knows":       "\x00\x01\x02\x03" + pad,
		"a program that is small": program,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := s.newTenant(t).creates(t, content)
			s.wantJobs(t, url, 1)
		})
	}
	t.Run("the second part of a file", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		u.do("POST", u.uploads, strings.NewReader(program+pad), "Upload-Length", "20494", "Content-Type", octets, "Upload-Concat", "partial").want(t, 201, "")
		url := u.do("POST", u.uploads, strings.NewReader("a photo, perhaps"), "Upload-Length", "20510", "Content-Type", octets).want(t, 201, "").header.Get("Location")
		u.do("PATCH", url, strings.NewReader(program+pad), "Upload-Offset", "16", "Content-Type", octets).want(t, 204, "")
	})
}

// creates sends content in one request and returns the address of its upload.
func (u user) creates(t *testing.T, content string) string {
	t.Helper()
	return u.do("POST", u.uploads, strings.NewReader(content), "Upload-Length", strconv.Itoa(len(content)), "Content-Type", octets).want(t, 201, "").header.Get("Location")
}
