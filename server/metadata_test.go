package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// HEAD returns Upload-Metadata as its client gave it, in its order and spelling (tus 1.0.0, Creation, Upload-Metadata: MUST).
func TestMetadataComesBackAsGiven(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	for _, header := range []string{
		"filename w7EudHh0,own Ciw=,flag",
		"z eg==,a YQ==,is_confidential,m",
		"filename dGVjaG8uanBn ,  own YQ==",
		"empty, b Yg==",
		"k0 MA==,k1 MQ==,k2 Mg==,k3 Mw==,k4 NA==,k5 NQ==,k6 Ng==,k7 Nw==,k8 OA==,k9 OQ==",
	} {
		url := u.create(5, "Upload-Metadata", header)
		u.do("HEAD", url, nil).want(t, 200, "").wantHeader(t, "Upload-Metadata", header)
		u.patch(url, 0, strings.NewReader("hello")).want(t, 204, "")
		u.do("HEAD", url, nil).want(t, 200, "").wantHeader(t, "Upload-Metadata", header)
	}
	a := u.do("HEAD", u.create(5), nil).want(t, 200, "")
	a.wantHeader(t, "Upload-Metadata", "")
}

// Metadata that came otherwise is written as the header's grammar has it: keys in order, none with a space behind it, and none
// that a header cannot have.
func TestMetadataOfAForm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.user.form(strings.NewReader(field("z", "1") + field("client_id", "one") + field("flag", "") + field("with space", "x") +
		field("with,comma", "x") + field("ñandú", "x") + field(`file; filename="a.txt"`, "hello", "Content-Type: text/plain") + formEnd))
	address := a.want(t, 201, "").header.Get("Location")
	s.user.do("HEAD", s.url+address, nil).want(t, 200, "").wantHeader(t, "Upload-Metadata",
		metadata("client_id", "one", "filename", "a.txt", "filetype", "text/plain")+",flag,"+metadata("z", "1"))
}

// Lines of one list are one list (RFC 9110, section 5.3). Of what may be there once, two lines are refused: the one that is
// read could be the wrong one.
func TestHeadersOnTwoLines(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	twice := func(method, url, name string, values []string, headers ...string) answer {
		r := u.request(method, url, strings.NewReader("hello"), headers...)
		r.Header[http.CanonicalHeaderKey(name)] = values
		return u.send(r)
	}
	lines := []string{metadata("filename", "obra.txt"), "", metadata("project", "torre") + ",flag"}
	a := twice("POST", u.uploads, "Upload-Metadata", lines, "Upload-Length", "5").want(t, 201, "")
	url := a.header.Get("Location")
	u.do("HEAD", url, nil).want(t, 200, "").wantHeader(t, "Upload-Metadata", lines[0]+","+lines[2])
	if got := u.upload(url); got.Filename != "obra.txt" {
		t.Errorf("%+v", got)
	}
	s.wantCount(t, 1, `select count(*) from uploads where project = 'torre' and id = $1`, idOf(url))
	twice("POST", u.uploads, "Upload-Metadata", []string{"a YQ==", "a Yg=="}, "Upload-Length", "5").want(t, 400, "bad-metadata")

	post, write := []string{"Upload-Length", "5"}, []string{"Upload-Offset", "0", "Content-Type", octets}
	for name, c := range map[string]struct {
		method, url string
		values      []string
		headers     []string
		status      int
	}{
		"Upload-Concat":                {"POST", u.uploads, []string{"partial", "partial"}, post, 400},
		"Upload-Defer-Length":          {"POST", u.uploads, []string{"1", "1"}, nil, 400},
		"Content-Type":                 {"PATCH", url, []string{octets, "image/png"}, write, 400},
		"Tus-Resumable":                {"PATCH", url, []string{"1.0.0", "2.0.0"}, write, 400},
		"Upload-Draft-Interop-Version": {"POST", u.uploads, []string{"6", "3"}, append([]string{"Tus-Resumable", ""}, post...), 400},
		"Upload-Complete":              {"POST", u.uploads, []string{"?1", "?0"}, []string{"Tus-Resumable", "", "Upload-Draft-Interop-Version", "6"}, 400},
		"Content-Disposition":          {"POST", u.uploads, []string{"attachment; filename=a", "attachment; filename=b"}, []string{"Tus-Resumable", "", "Upload-Draft-Interop-Version", "6", "Upload-Complete", "?1"}, 400},
		"X-HTTP-Method-Override":       {"POST", url, []string{"DELETE", "PATCH"}, write, 400},
		"Authorization":                {"DELETE", url, []string{"Bearer " + u.token, "Bearer none"}, nil, 401},
	} {
		t.Run(name, func(t *testing.T) {
			twice(c.method, c.url, name, c.values, c.headers...).want(t, c.status, "")
			u.wantOffset(url, 0)
		})
	}
}

// Upgrade is a list as well (RFC 9110, section 7.8).
func TestUpgradeOnTwoLines(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	r := s.user.request("GET", s.url+"/api/events", nil, "Connection", "Upgrade", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	r.Header["Upgrade"] = []string{"h2c", "websocket"}
	res, err := http.DefaultClient.Do(r)
	stack.Must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("%s", res.Status)
	}
}
