package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// patience is how long a test waits for what must happen.
const patience = stack.Patience

// A user sends requests with its own token.
type user struct {
	t      *testing.T
	token  string
	enters string // the id of the tenant that an admin acts in; "" for its own
}

// newTenant makes a tenant for this test alone and returns one of its field crew.
func newTenant(t *testing.T, quota string) (string, user) {
	t.Helper()
	t.Cleanup(func() { explain(t) })
	name := fmt.Sprintf("%s %d", t.Name(), time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := tramo.Tramo(ctx, "tenant", "add", name, "--quota", quota)
	stack.Must(t, err)
	return name, tramo.userOf(t, name, "crew", "empleado")
}

func newUser(t *testing.T) user {
	t.Helper()
	_, u := newTenant(t, "50GiB")
	return u
}

func (in installation) userOf(t *testing.T, tenant, id, role string) user {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	token, err := in.Tramo(ctx, "token", "--tenant", tenant, "--user", id, "--role", role)
	stack.Must(t, err)
	return user{t: t, token: strings.TrimSpace(token)}
}

// adminOf is an admin of a tenant of the operator's, in another tenant.
func (in installation) adminOf(t *testing.T, home, id, tenant string) user {
	t.Helper()
	u := in.userOf(t, home, id, "admin")
	out, err := in.Tramo(stack.Context(t), "tenant", "add", tenant, "--if-missing")
	stack.Must(t, err)
	u.enters = out
	return u
}

// An answer is a response read to its end.
type answer struct {
	asked  string // method and address
	status int
	header http.Header
	body   []byte
}

type problem struct {
	Type, Title, Detail string
	Status              int
}

// problem reads the answer as one, which it must be.
func (a answer) problem(t *testing.T) problem {
	t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type is %q, not a problem document; body %q", ct, a.body)
	}
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("read problem %q: %v", a.body, err)
	}
	if p.Status != a.status || !strings.HasPrefix(p.Type, "/problems/") || p.Title == "" || p.Detail == "" {
		t.Errorf("problem %+v is not complete or says another status than %d", p, a.status)
	}
	return p
}

// want checks the status and, of an error, the name of its problem.
func (a answer) want(t *testing.T, status int, problem string) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("%s: %d %s, want %d", a.asked, a.status, a.body, status)
	}
	if problem != "" && a.problem(t).Type != "/problems/"+problem {
		t.Fatalf("%s: %d %s, want %s", a.asked, a.status, a.body, problem)
	}
	return a
}

// do sends one request. Headers come in pairs; the tus version and the token are added unless given.
func (u user) do(method, url string, body io.Reader, headers ...string) answer {
	u.t.Helper()
	a, err := u.try(u.t.Context(), method, url, body, headers...)
	if err != nil {
		u.t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

// answerTime is how long a request may take, with its answer.
const answerTime = 2 * stack.Patience

// try sends one request. It fails after [answerTime] with the request that has no answer.
func (u user) try(ctx context.Context, method, url string, body io.Reader, headers ...string) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("%s %s has no answer after %s", method, url, answerTime))
	defer cancel()
	if pipe, ok := body.(*io.PipeReader); ok {
		// net/http waits for its read of the body, also once the connection is closed.
		defer context.AfterFunc(ctx, func() { pipe.CloseWithError(context.Cause(ctx)) })()
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}, err
	}
	u.addHeaders(r, headers)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close() // read to its end
	data, err := io.ReadAll(res.Body)
	return answer{asked: method + " " + url, status: res.StatusCode, header: res.Header, body: data}, err
}

func (u user) addHeaders(r *http.Request, headers []string) {
	r.Header.Set("Tus-Resumable", "1.0.0")
	if u.token != "" {
		r.Header.Set("Authorization", "Bearer "+u.token)
	}
	if u.enters != "" {
		r.Header.Set("Tramo-Tenant", u.enters)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
}

// metadata encodes pairs as Upload-Metadata.
func metadata(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i] + " " + base64.StdEncoding.EncodeToString([]byte(pairs[i+1])))
	}
	return b.String()
}

// create begins an upload at a replica and returns its address.
func (u user) create(at replica, size int, meta ...string) string {
	u.t.Helper()
	a := u.do("POST", at.URL+"/api/uploads", nil, "Upload-Length", strconv.Itoa(size), "Upload-Metadata", metadata(meta...)).want(u.t, http.StatusCreated, "")
	return a.header.Get("Location")
}

// patch sends bytes at an offset.
func (u user) patch(url string, offset int, data []byte) answer {
	u.t.Helper()
	return u.do("PATCH", url, bytes.NewReader(data), "Upload-Offset", strconv.Itoa(offset), "Content-Type", "application/offset+octet-stream")
}

// offset asks by HEAD.
func (u user) offset(url string) int {
	u.t.Helper()
	a := u.do("HEAD", url, nil).want(u.t, http.StatusOK, "")
	n, err := strconv.Atoi(a.header.Get("Upload-Offset"))
	stack.Must(u.t, err)
	return n
}

func (u user) wantOffset(url string, want int) {
	u.t.Helper()
	if got := u.offset(url); got != want {
		u.t.Fatalf("%s is at offset %d, want %d", url, got, want)
	}
}

// send uploads data in one request and returns its address.
func (u user) send(at replica, data []byte, meta ...string) string {
	u.t.Helper()
	a := u.do("POST", at.URL+"/api/uploads", bytes.NewReader(data), "Upload-Length", strconv.Itoa(len(data)),
		"Upload-Metadata", metadata(meta...), "Content-Type", "application/offset+octet-stream").want(u.t, http.StatusCreated, "")
	return a.header.Get("Location")
}

// upload is the answer to GET.
type upload struct {
	ID       string
	Status   string
	Offset   int
	Size     int
	Filename string
	Type     string
	Project  string
	SHA256   string
	Failure  *struct{ Reason, Detail string }

	NoThumbnail *string `json:"no_thumbnail"`

	Thumbnails []struct {
		Size, Width, Height, Bytes int
		Type, URL                  string
	}
	Facts *struct {
		TakenAt     string `json:"taken_at"`
		TakenLocal  string `json:"taken_local"`
		GPS         *struct{ Latitude, Longitude, Altitude float64 }
		Camera      *struct{ Make, Model string }
		Width       int
		Height      int
		Orientation int
		Duration    float64
	}
}

func (u user) get(url string) upload {
	u.t.Helper()
	return decode[upload](u.t, u.do("GET", url, nil), http.StatusOK)
}

// await polls until the upload has ended and returns it with every status seen on the way, in order.
func (u user) await(url string) (up upload, seen []string) {
	u.t.Helper()
	stack.Until(u.t, "end of "+url, func() bool {
		up = u.get(url)
		if len(seen) == 0 || seen[len(seen)-1] != up.Status {
			seen = append(seen, up.Status)
		}
		return slices.Contains([]string{"completed", "failed", "cancelled", "expired"}, up.Status)
	})
	return up, seen
}

// completes waits until the upload is completed, and returns it.
func (u user) completes(url string) upload {
	u.t.Helper()
	up, seen := u.await(url)
	if up.Status != "completed" {
		u.t.Fatalf("%s was %v, and is %+v", url, seen, up)
	}
	return up
}

// arrives waits until the upload is completed, as it was sent, and returns it.
func (u user) arrives(url string, sent []byte) upload {
	u.t.Helper()
	up := u.completes(url)
	if up.SHA256 != sumOf(sent) {
		u.t.Fatalf("%s is not what was sent: %+v", url, up)
	}
	return up
}

// idOf is the last element of an upload's address.
func idOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// eicar is the test file that every scanner knows.
func eicar() []byte { return []byte(stack.EICAR()) }

// metric reads one sample, with its labels as Prometheus prints them, or the sum over all of a family's, from
// a replica's /metrics.
func (r replica) metric(t *testing.T, name string) float64 {
	t.Helper()
	sum := 0.0
	for line := range strings.Lines(string(fetch(t, r.Ops+"/metrics"))) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if family, _, _ := strings.Cut(sample, "{"); sample != name && family != name {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		stack.Must(t, err)
		sum += n
	}
	return sum
}

// awaitMetric waits until a sample is at least want.
func (r replica) awaitMetric(t *testing.T, name string, want float64) {
	t.Helper()
	stack.Until(t, name, func() bool { return r.metric(t, name) >= want })
}
