package server_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/test/stack"
)

// What a stranger sends, whatever it is, costs no 5xx and no panic, is answered by a problem document if it is
// refused, and changes nothing of another tenant's.

// A target is a server with an upload of ours and one of another tenant.
type target struct {
	*site
	mine   string // path of an upload that takes bytes
	theirs string // path of one that is complete
	other  user
	before string // the answer to GET for theirs
}

func newTarget(f *testing.F) *target {
	f.Helper()
	s := newSite(f)
	a := &target{site: s, other: s.newTenant(f)}
	whole := a.other.do("POST", a.other.uploads, strings.NewReader("hello"), "Upload-Length", "5", "Content-Type", octets, "Upload-Concat", "partial").want(f, 201, "")
	a.theirs = strings.TrimPrefix(whole.header.Get("Location"), s.url)
	a.mine = strings.TrimPrefix(s.user.create(1000), s.url)
	a.before = string(a.other.do("GET", s.url+a.theirs, nil).body)
	return a
}

// finally is a recorder that lets interim answers pass.
type finally struct{ *httptest.ResponseRecorder }

func (w finally) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseRecorder.WriteHeader(status)
	}
}

func refusedByNetHTTP() *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	w.WriteHeader(http.StatusBadRequest)
	return w
}

// serve answers a request as ours, without a network, and checks what holds for any. A request that net/http
// does not let through is answered as net/http answers it.
func (a *target) serve(t *testing.T, as user, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	address, err := url.ParseRequestURI(path)
	if err != nil || strings.ContainsAny(path, " \t\r\n\x00") {
		return refusedByNetHTTP()
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body))
	r.URL, r.RequestURI = address, path
	r.Header.Set("Authorization", "Bearer "+as.token)
	r.Header.Set("Tus-Resumable", "1.0.0")
	for i := 0; i < len(headers); i += 2 {
		if strings.ContainsFunc(headers[i+1], func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return refusedByNetHTTP()
		}
		r.Header.Set(headers[i], strings.Trim(headers[i+1], " \t"))
	}
	w := finally{httptest.NewRecorder()}
	a.server.ServeHTTP(w, r)
	what := method + " " + path + " " + strconv.Quote(strings.Join(headers, " "))
	if w.Code >= 500 && w.Code != http.StatusNotImplemented {
		t.Errorf("%s: %d %s", what, w.Code, w.Body)
	}
	var p struct{ Type, Title, Detail string }
	if w.Code >= 400 && method != http.MethodHead && (json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Type == "" || p.Detail == "") {
		t.Errorf("%s: %d is no problem document: %s", what, w.Code, w.Body)
	}
	return w.ResponseRecorder
}

// spare checks that the other tenant's upload is as it was.
func (a *target) spare(t *testing.T) {
	t.Helper()
	if w := a.serve(t, a.other, "GET", a.theirs, ""); w.Body.String() != a.before {
		t.Errorf("theirs is %s, was %s", w.Body, a.before)
	}
}

func FuzzUploadPath(f *testing.F) {
	a := newTarget(f)
	id := idOf(a.theirs).String()
	for _, s := range []string{
		id, strings.ToUpper(id), "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), id + "/", "/" + id,
		"%7B" + id + "%7D", id + "%00", id + "%2F", "..%2F" + id, "../uploads/" + id, "", "%", "%ff", ".", "*", id + "?x", id + ";x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, method := range []string{"HEAD", "PATCH", "DELETE", "GET"} {
			w := a.serve(t, a.user, method, server.UploadsPath+"/"+s, "x", "Upload-Offset", "5", "Content-Type", octets)
			if w.Header().Get("Upload-Offset") != "" || strings.Contains(w.Body.String(), id) {
				t.Errorf("%s %s tells of another tenant's upload: %v %s", method, s, w.Header(), w.Body)
			}
		}
		a.spare(t)
	})
}

func FuzzOffsetAndLength(f *testing.F) {
	a := newTarget(f)
	for _, s := range []string{"0", "5", "-1", "+5", "5.0", "0x5", "1e3", "", " 5", "5 5", "5,5", "٥", "00", "9223372036854775807", "9223372036854775808"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, offset, length string) {
		w := a.serve(t, a.user, "POST", server.UploadsPath, "", "Upload-Length", length)
		n, err := strconv.ParseUint(strings.Trim(length, " \t"), 10, 63)
		if good := err == nil && n > 0 && n <= maxSize; good != (w.Code == 201) {
			t.Errorf("Upload-Length %q: %d %s", length, w.Code, w.Body)
		}
		w = a.serve(t, a.user, "PATCH", a.mine, "", "Upload-Offset", offset, "Content-Type", octets)
		n, err = strconv.ParseUint(strings.Trim(offset, " \t"), 10, 63)
		if good := err == nil && n == 0; good != (w.Code == 204) {
			t.Errorf("Upload-Offset %q: %d %s", offset, w.Code, w.Body)
		}
		a.serve(t, a.user, "PATCH", a.mine, "", "Upload-Offset", "0", "Content-Type", octets, "Upload-Length", length)
		a.serve(t, a.user, "POST", server.UploadsPath, "", "Upload-Defer-Length", length)
	})
}

// What is created, HEAD gives back.
func FuzzMetadata(f *testing.F) {
	a := newTarget(f)
	for _, s := range []string{
		"", "a YQ==,b", "filename ///=", metadata("filename", "../a\x00"), metadata("project", "a b"), metadata("sha256", "x"),
		metadata("filetype", "image/png; a=\"b"), metadata("client_id", "ñ"), metadata("__proto__", "{}"), ", ,", "a\xff YQ==",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		w := a.serve(t, a.user, "POST", server.UploadsPath, "", "Upload-Length", "5", "Upload-Metadata", header)
		if w.Code != 201 {
			return
		}
		head := a.serve(t, a.user, "HEAD", pathOf(t, w), "").Header().Get("Upload-Metadata")
		if got, want := handler.ParseMetadataHeader(head), handler.ParseMetadataHeader(header); !maps.Equal(got, want) {
			t.Errorf("%q: HEAD tells %q", header, head)
		}
	})
}

func pathOf(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	u, err := url.Parse(w.Header().Get("Location"))
	stack.Must(t, err)
	return u.Path
}

// A body counts only if its checksum is right.
func FuzzUploadChecksum(f *testing.F) {
	a := newTarget(f)
	for _, s := range []string{"", "sha1", "sha1 ", "sha1  ", "md5 x", "crc32 AAAAAA==", "crc32 NhCmhg==", "SHA1 x", "sha1\tx", "sha256 " + strings.Repeat("A", 1000)} {
		f.Add(s, "hello")
	}
	for _, algorithm := range []string{"sha1", "sha256", "crc32"} {
		f.Add(sum(algorithm, []byte("hello")), "hello")
		f.Add(sum(algorithm, []byte("hello"))+" ", "hallo")
	}
	f.Fuzz(func(t *testing.T, header, body string) {
		w := a.serve(t, a.user, "POST", server.UploadsPath, body, "Upload-Length", strconv.Itoa(len(body)+1),
			"Content-Type", octets, "Upload-Checksum", header)
		name, _, _ := strings.Cut(strings.Trim(header, " \t"), " ")
		right := slices.Contains([]string{"sha1", "sha256", "crc32"}, name) && sum(name, []byte(body)) == strings.Trim(header, " \t")
		if w.Code == 201 && !right && !equivalent(header, name, body) {
			t.Errorf("%q of %q was taken", header, body)
		}
		if w.Code != 201 && right {
			t.Errorf("%q of %q: %d", header, body, w.Code)
		}
	})
}

// equivalent reports whether another spelling in Base64 of the right sum: its last bits mean nothing.
func equivalent(header, name, body string) bool {
	want := sum(name, []byte(body))
	got := strings.Trim(header, " \t")
	return len(got) == len(want) && strings.HasPrefix(got, want[:len(want)-3])
}

// No other tenant's upload becomes part of ours.
func FuzzConcat(f *testing.F) {
	a := newTarget(f)
	id := idOf(a.theirs).String()
	for _, s := range []string{
		"partial", "final", "final;", "final; ", "final;/", "final;" + a.theirs, "final;" + a.url + a.theirs, "final;" + a.mine,
		"final;" + a.mine + " " + a.theirs, "final;" + a.theirs + "/", "final;" + server.UploadsPath + "/" + strings.ToUpper(id),
		"final;" + server.UploadsPath + "/{" + id + "}", "final;" + server.UploadsPath + "/urn:uuid:" + id, "FINAL;" + a.theirs, "partial;x",
		"final;" + strings.Repeat(a.mine+" ", 100), "final;" + server.UploadsPath + "//" + id, "final;\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for _, length := range []string{"5", ""} {
			w := a.serve(t, a.user, "POST", server.UploadsPath, "", "Upload-Length", length, "Upload-Concat", header)
			if w.Code != 201 {
				continue
			}
			concat := a.serve(t, a.user, "HEAD", pathOf(t, w), "").Header().Get("Upload-Concat")
			if strings.HasPrefix(concat, "final") && strings.Contains(concat, id) {
				t.Errorf("%q made %q of another tenant's upload", header, concat)
			}
		}
		a.spare(t)
	})
}

// Who says that a request completes the upload hears of success only if it does.
func FuzzDraftHeaders(f *testing.F) {
	a := newTarget(f)
	for _, v := range []string{"3", "4", "5", "6", "7", "", "?1", "6 "} {
		f.Add(v, "?1", "5", "image/png", `attachment; filename="a.png"`, "hello")
		f.Add(v, "?0", "10", "", "", "hello")
		f.Add(v, "?1", "", "text/plain; charset=x", "attachment; filename*=UTF-8''%ff%00", "")
		f.Add(v, "1", "-5", "/", ";;", "hello")
		f.Add(v, "?1;a", "", "a/b/c", "inline; filename=../../x; filename=y", "hello")
	}
	f.Fuzz(func(t *testing.T, version, complete, length, kind, disposition, body string) {
		if strings.TrimSpace(version) == "" {
			return
		}
		headers := []string{
			"Tus-Resumable", "0", "Upload-Draft-Interop-Version", version, "Upload-Complete", complete, "Upload-Incomplete", complete,
			"Upload-Length", length, "Content-Type", kind, "Content-Disposition", disposition,
		}
		w := a.serve(t, a.user, "POST", server.UploadsPath, body, headers...)
		if w.Code == 201 && complete == "?1" && version != "3" && w.Header().Get("Upload-Offset") != strconv.Itoa(len(body)) {
			t.Errorf("%q: success at %s of %d bytes", headers, w.Header().Get("Upload-Offset"), len(body))
		}
		for _, method := range []string{"HEAD", "PATCH", "DELETE"} {
			w := a.serve(t, a.user, method, a.theirs, body, append(headers, "Upload-Offset", "5")...)
			stack.Want(t, w.Header().Get("Upload-Offset"), "", "offset of another tenant's upload, by %s", method)
		}
		a.spare(t)
	})
}
