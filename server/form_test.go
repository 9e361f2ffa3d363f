package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

const boundary = "a-boundary"

// field writes one part of a form; a name with a semicolon brings more parameters.
func field(name, value string, headers ...string) string {
	disposition, parameters, _ := strings.Cut(name, ";")
	s := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + disposition + "\""
	if parameters != "" {
		s += ";" + parameters
	}
	for _, h := range headers {
		s += "\r\n" + h
	}
	return s + "\r\n\r\n" + value + "\r\n"
}

const formEnd = "--" + boundary + "--\r\n"

// form sends a form as a client without tus does.
func (u user) form(body io.Reader, headers ...string) answer {
	u.t.Helper()
	return u.do("POST", u.uploads, body, append([]string{"Tus-Resumable", "", "Content-Type", "multipart/form-data; boundary=" + boundary}, headers...)...)
}

// The same file sent as a form and by tus leaves the same rows and the same JSON, except for ids and times, whether it fits one
// part or not.
func TestFormEqualsTus(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, size := range []int{3 * mib, 2*part + 12345} {
		data := noise(size)
		sha := sumHex(data)
		tus := s.user.do("POST", s.user.uploads, bytes.NewReader(data), "Upload-Length", strconv.Itoa(size), "Content-Type", octets,
			"Upload-Metadata", metadata("filename", `día "1".jpg`, "filetype", "image/jpeg", "project", "torre", "batch", "lunes", "sha256", sha, "nota", "ñ")).want(t, 201, "")
		form := s.user.form(strings.NewReader(field("project", "torre") + field("batch", "lunes") + field("sha256", sha) + field("nota", "ñ") +
			field(`file; filename="día %221%22.jpg"`, string(data), "Content-Type: image/jpeg") + formEnd))
		form.want(t, 201, "")
		form.wantHeader(t, "Tus-Resumable", "")
		address := form.header.Get("Location")
		if !strings.HasPrefix(address, server.UploadsPath+"/") {
			t.Fatalf("Location is %q", address)
		}

		want, got := s.rows(t, tus.header.Get("Location")), s.rows(t, address)
		stack.Want(t, got, want, "rows by a form, which must be those by tus")
		wantJSON := told(t, s.user.do("GET", tus.header.Get("Location"), nil).body)
		stack.Want(t, told(t, form.body), wantJSON, "answer to a form, which must be that to tus")
		stack.Want(t, told(t, s.user.do("GET", s.url+address, nil).body), wantJSON, "answer to GET")
		if wantJSON["status"] != `"uploaded"` || wantJSON["sha256"] != strconv.Quote(sha) {
			t.Errorf("%v", wantJSON)
		}
		s.wantJobs(t, address, 1)
	}
}

// rows returns what is kept of an upload, without its id, times, and what says how its bytes came.
func (s *site) rows(t *testing.T, address string) string {
	t.Helper()
	return value[string](t, s, `
		select jsonb_pretty(to_jsonb(u) - '{id,created_at,updated_at,uploaded_at,object_key,metadata_header}'::text[]
			|| jsonb_build_object('object', regexp_replace(u.object_key, '.*/original-.*', 'original'))
			|| (to_jsonb(c) - '{upload_id,touched_at,object_key,multipart_id,next_part,tail_fence}'::text[]))
		from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id where u.id = $1`, idOf(address))
}

// told reads an upload's JSON without its id and times.
func told(t *testing.T, body []byte) map[string]string {
	t.Helper()
	var j map[string]json.RawMessage
	stack.Must(t, json.Unmarshal(body, &j))
	m := map[string]string{}
	for k, v := range j {
		if k != "id" && !strings.HasSuffix(k, "_at") {
			m[k] = string(v)
		}
	}
	return m
}

// A refused form leaves nothing behind, for whatever reason and however late it is refused: no unfinished upload and no used
// quota.
func TestFormRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := field(`file; filename="a.txt"`, "hello", "Content-Type: text/plain")
	chunked := func(body string) io.Reader { return io.MultiReader(strings.NewReader(body)) } // its length is not declared
	large := strings.Repeat("x", maxSize+1)
	for name, c := range map[string]struct {
		body    io.Reader
		status  int
		problem string
		detail  string
		headers []string
	}{
		"field behind":     {strings.NewReader(file + field("project", "torre") + formEnd), 400, "bad-request", "before the file", nil},
		"two files":        {strings.NewReader(file + field(`more; filename="b.txt"`, "b") + formEnd), 400, "bad-request", "more than one file", nil},
		"no file":          {strings.NewReader(field("project", "torre") + formEnd), 400, "bad-request", "no file", nil},
		"nothing":          {strings.NewReader(formEnd), 400, "bad-request", "no file", nil},
		"empty file":       {strings.NewReader(field(`file; filename="a.txt"`, "") + formEnd), 422, "empty", "", nil},
		"field twice":      {strings.NewReader(field("batch", "a") + field("batch", "b") + file + formEnd), 400, "bad-metadata", "batch", nil},
		"field unnamed":    {strings.NewReader(field("", "a") + file + formEnd), 400, "bad-metadata", "name", nil},
		"long field":       {strings.NewReader(field("nota", strings.Repeat("x", 9000)) + file + formEnd), 400, "bad-metadata", "bytes", nil},
		"many fields":      {strings.NewReader(manyFields(100) + file + formEnd), 400, "bad-metadata", "fields", nil},
		"bad project":      {strings.NewReader(field("project", "../x") + file + formEnd), 400, "bad-metadata", "project", nil},
		"bad type":         {strings.NewReader(field(`file; filename="a"`, "x", "Content-Type: video/mp4") + formEnd), 415, "type-not-allowed", "", nil},
		"wrong sha256":     {strings.NewReader(field("sha256", strings.Repeat("0", 64)) + file + formEnd), 422, "checksum-mismatch", "", nil},
		"no end":           {strings.NewReader(file), 400, "bad-request", "boundary", nil},
		"half an end":      {strings.NewReader(file + formEnd[:len(formEnd)-4]), 400, "bad-request", "boundary", nil},
		"no form":          {strings.NewReader("hello"), 400, "bad-request", "boundary", nil},
		"no boundary":      {strings.NewReader(file + formEnd), 400, "bad-request", "boundary", []string{"Content-Type", "multipart/form-data"}},
		"too large":        {strings.NewReader(field("file", large) + formEnd), 413, "too-large", "", nil},
		"too large, later": {chunked(field("file", large) + formEnd), 413, "too-large", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := s.newTenant(t)
			u.form(c.body, c.headers...).want(t, c.status, c.problem).wantText(t, c.detail)
			s.wantCount(t, 0, `select count(*) from uploads where tenant_id = $1 and status not in ('cancelled', 'failed')`, u.who.Tenant)
			s.wantCharged(t, u, 0)
		})
	}
	s.user.as(s, "inv", tenant.Inversionista).form(strings.NewReader(file+formEnd)).want(t, 403, "forbidden")
	nobody := s.user
	nobody.token = "x"
	nobody.form(strings.NewReader(file+formEnd)).want(t, 401, "unauthorized")
}

func manyFields(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(field("f"+strconv.Itoa(i), "x"))
	}
	return s.String()
}

// A form is charged with its Content-Length, not with the largest upload, so a tenant with quota for the file has quota for the
// form. In the end it is charged with the size of the file.
func TestFormQuota(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "update tenants set quota_bytes = $2 where id = $1", s.user.who.Tenant, mib)
	body := func(size int) io.Reader {
		return strings.NewReader(field(`file; filename="a"`, string(noise(size))) + formEnd)
	}
	s.user.form(body(2*mib)).want(t, 413, "quota-exceeded")
	s.user.form(body(mib/2)).want(t, 201, "")
	s.wantCharged(t, s.user, mib/2)
}

// begin sends the beginning of a form over a connection of its own.
func (u user) begin(length int, beginning string) net.Conn {
	u.t.Helper()
	r := u.request("POST", u.uploads, nil)
	conn, err := net.Dial("tcp", r.URL.Host) //nolint:noctx // it is closed below
	stack.Must(u.t, err)
	u.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n%s",
		r.URL.Path, r.URL.Host, r.Header.Get("Authorization"), boundary, length, beginning)
	stack.Must(u.t, err)
	return conn
}

// A form without a client_id that is cut off or idle releases its quota at once. One with a client_id stays, and can be resumed by
// the same form or by tus from its offset.
func TestFormCutOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.NetworkTimeout = time.Second })
	data := noise(2 * mib)
	// start is a form up to its file's first byte.
	start := func(fields string) string {
		return fields + strings.TrimSuffix(field(`file; filename="a.jpg"`, ""), "\r\n")
	}
	half := func(t *testing.T, fields string) (user, net.Conn) {
		u := s.newTenant(t)
		conn := u.begin(3*mib, start(fields)+string(data[:mib]))
		stack.Until(t, "the upload of a form holds bytes", func() bool {
			var at int
			err := s.admin.QueryRow(t.Context(), "select received from contents where tenant_id = $1", u.who.Tenant).Scan(&at)
			return err == nil && at >= mib/2
		})
		return u, conn
	}
	for name, end := range map[string]func(*testing.T, net.Conn){
		"cut": func(_ *testing.T, c net.Conn) { c.Close() },
		"silent": func(t *testing.T, c net.Conn) {
			answer, err := io.ReadAll(c)
			if err != nil || !strings.Contains(string(answer), "423") || !strings.Contains(string(answer), "Send it again") {
				t.Errorf("silence is answered %q, %v", answer, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, conn := half(t, "")
			end(t, conn)
			stack.Until(t, "the upload is cancelled", func() bool {
				return value[string](t, s, "select status from uploads where tenant_id = $1", u.who.Tenant) == "cancelled"
			})
			stack.Until(t, "its bytes are removed", func() bool {
				return value[bool](t, s, "select not remains from uploads where tenant_id = $1", u.who.Tenant)
			})
			s.wantCharged(t, u, 0)
		})
	}
	for name, again := range map[string]func(user) answer{
		"form again": func(u user) answer {
			return u.form(strings.NewReader(start(field("client_id", "one")) + string(data) + "\r\n" + formEnd))
		},
		"tus goes on": func(u user) answer {
			a := u.do("POST", u.uploads, nil, "Upload-Length", strconv.Itoa(len(data)), "Upload-Metadata", metadata("client_id", "one", "filename", "a.jpg"))
			if a.status != 201 {
				return a
			}
			at := u.offset(a.header.Get("Location"))
			if at < mib/2 {
				t.Errorf("tus goes on at %d", at)
			}
			u.patch(a.header.Get("Location"), at, reader(data[at:])).want(t, 204, "")
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, conn := half(t, field("client_id", "one"))
			conn.Close()
			var a answer
			stack.Until(t, "another request gets the upload", func() bool { // 423 until the form's request has noticed the end of its connection
				a = again(u)
				return a.status != 423
			})
			a.want(t, 201, "")
			if j := u.upload(s.url + pathOnly(a.header.Get("Location"))); j.Status != "uploaded" || j.SHA256 != sumHex(data) {
				t.Errorf("%+v", j)
			}
			s.wantCharged(t, u, len(data))
		})
	}
}

func sumHex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// A form that is sent again after it was complete gets its upload. With the same client_id, other content is refused.
func TestFormRepeated(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	send := func(content string) answer {
		return s.user.form(strings.NewReader(field("client_id", "one") + field(`file; filename="a.txt"`, content) + formEnd))
	}
	first := send("hello").want(t, 201, "")
	again := send("hello").want(t, 201, "")
	again.wantHeader(t, "Location", first.header.Get("Location"))
	for _, other := range []string{"hallo", "hell", "hello!", "x"} {
		send(other).want(t, 409, "client-id-taken")
	}
	s.wantJobs(t, first.header.Get("Location"), 1)
	begun := s.user.create(100, "Upload-Metadata", metadata("client_id", "two", "filename", "a.txt"))
	s.user.form(strings.NewReader(field("client_id", "two")+field(`file; filename="a.txt"`, "hello")+formEnd)).want(t, 409, "client-id-taken")
	s.user.wantOffset(begun, 0)
}

// Forms and tus are distinguished by headers that their clients always send.
func TestFormDetection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	body := field("file", "hello") + formEnd
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{nil, 201},
		{[]string{"Content-Type", "Multipart/Form-Data; boundary=\"" + boundary + "\""}, 201},
		{[]string{"Tus-Resumable", "1.0.0"}, 400},           // a creation without a length
		{[]string{"Content-Type", "application/json"}, 412}, // neither a form nor tus
		{[]string{"Content-Type", ""}, 412},
	} {
		s.user.form(strings.NewReader(body), c.headers...).want(t, c.status, "")
	}
	// The draft takes a body for the file, and not the form around it.
	s.user.form(strings.NewReader(body), "Upload-Draft-Interop-Version", "6", "Upload-Complete", "?1").want(t, http.StatusUnsupportedMediaType, "")
}

// No form causes a 5xx, or leaves charged quota without an upload.
func FuzzForm(f *testing.F) {
	a := newTarget(f)
	for _, s := range []string{
		"", formEnd, field("file", "x") + formEnd, field("a", "b"), field(`file; filename*=UTF-8''%ff%00`, "x") + formEnd,
		field(`file; filename="..\..\x"`, "x") + formEnd, "--" + boundary + "\r\n\r\n\r\n" + formEnd, "--" + boundary + "\r\nX\r\n\r\n",
		field("file", "x", "Content-Type: ;;") + formEnd, field("\xff", "x") + field("file", "x") + formEnd,
		field("client_id", "\x00") + field("file", "x") + formEnd, field("file", strings.Repeat("\r\n--a-boundar", 400)) + formEnd,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := a.serve(t, a.user, "POST", server.UploadsPath, body, "Tus-Resumable", "", "Content-Type", "multipart/form-data; boundary="+boundary)
		if w.Code != 201 && w.Code >= 500 {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
		var charged, accounted int64
		stack.Must(t, a.admin.QueryRow(t.Context(), `select t.charged_bytes, coalesce(sum(u.charged_bytes), 0) from tenants t
			left join uploads u on u.tenant_id = t.id where t.id = $1 group by 1`, a.user.who.Tenant).Scan(&charged, &accounted))
		stack.Want(t, charged, accounted, "bytes charged for %q, which must be those accounted for", body)
		a.spare(t)
	})
}

// curl on Windows sends names and values in the code page of the system.
func TestFormOfACodePage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.user.form(strings.NewReader(field("nota", "ma\xf1ana")+field("se\xf1al", "x")+
		field("file; filename=\"cami\xf3n \x80 5.txt\"", "hello", "Content-Type: text/plain")+formEnd)).want(t, 201, "")
	address := s.url + a.header.Get("Location")
	stack.Want(t, s.user.upload(address).Filename, "camión € 5.txt", "name")
	s.wantCount(t, 1, `select count(*) from uploads where id = $1 and metadata @> '{"nota": "mañana", "señal": "x"}'`, idOf(address))
}

// Clients leave out the quotation marks that RFC 2045, section 5.1, wants around these.
func TestFormBoundaries(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	for _, b := range []string{"----=_Part_1.2", "a:b", "a/b?c", "(a,b)", "=", "'a+b'"} {
		for _, contentType := range []string{"multipart/form-data; boundary=" + b, `Multipart/Form-Data;Boundary="` + b + `"`, "multipart/form-data; charset=utf-8;boundary=" + b + " ; x=y"} {
			body := strings.ReplaceAll(field(`file; filename="a.txt"`, "hello")+formEnd, boundary, b)
			u.form(strings.NewReader(body), "Content-Type", contentType).want(t, 201, "")
		}
	}
	u.form(strings.NewReader(formEnd), "Content-Type", "multipart/form-data; a=:; b").want(t, 400, "bad-request").wantText(t, "boundary")
	r := u.request("POST", u.uploads, strings.NewReader(formEnd), "Tus-Resumable", "")
	r.Header["Content-Type"] = []string{"multipart/form-data; boundary=a", "multipart/form-data; boundary=b"}
	u.send(r).want(t, 400, "bad-request").wantText(t, "Content-Type")
}
