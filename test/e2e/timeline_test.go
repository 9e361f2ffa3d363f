package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

type entry struct {
	Event      string
	At         time.Time
	Offset     *int
	Replica    *string
	DurationMS *int    `json:"duration_ms"`
	TraceID    *string `json:"trace_id"`
	Detail     map[string]any
}

// timeline reads all of an upload's, limit entries a page.
func (u user) timeline(at, limit string) (all []entry) {
	u.t.Helper()
	for cursor := ""; ; {
		page := decode[struct {
			Items []entry
			Next  *string
		}](u.t, u.do("GET", at+"/timeline?limit="+limit+"&cursor="+url.QueryEscape(cursor), nil), http.StatusOK)
		all = append(all, page.Items...)
		if page.Next == nil {
			return all
		}
		cursor = *page.Next
	}
}

func events(entries []entry) (names []string) {
	for _, e := range entries {
		names = append(names, e.Event)
	}
	return names
}

// A request that brings a trace is answered in it, logged in it, and so is what it led to, down to the
// worker's steps, each with the process that it happened in.
func TestTimelineAndTrace(t *testing.T) {
	t.Parallel()
	const traceID, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	in := install(t, stack.Installation{})
	u := in.user(t)
	server := in.serves(t, "TRAMO_REPLICA=server-1")
	worker := in.works(t, "TRAMO_REPLICA=worker-1")

	photo := stack.Photo(stack.PhotoConfig{Seed: 12})
	at := u.create(server, len(photo), "filetype", "image/jpeg")
	u.patch(at, 0, photo[:1000])
	a := u.do("PATCH", at, strings.NewReader(string(photo[1000:])), "Upload-Offset", "1000", "Content-Type", "application/offset+octet-stream",
		"traceparent", "00-"+traceID+"-"+span+"-01")
	if got := a.header.Get("traceresponse"); !strings.HasPrefix(got, "00-"+traceID+"-") || strings.Contains(got, span) || !strings.HasSuffix(got, "-01") {
		t.Errorf("%d, traceresponse %q", a.status, got)
	}
	u.await(at)

	told := u.timeline(at, "3")
	stack.Want(t, events(told), events(u.timeline(at, "500")), "events by pages")
	traced := false
	replicas := map[string]string{"created": "server-1", "uploaded": "server-1", "processing": "worker-1", "scan": "worker-1", "completed": "worker-1"}
	var order []string
	for _, e := range told {
		if e.Event == "uploaded" {
			traced = true
			if e.Offset == nil || *e.Offset != len(photo) {
				t.Errorf("uploaded at %v", e.Offset)
			}
		}
		want, known := replicas[e.Event]
		if !known {
			continue
		}
		order = append(order, e.Event)
		if e.Replica == nil || *e.Replica != want {
			t.Errorf("%s at %v", e.Event, e.Replica)
		}
		if e.TraceID == nil || (*e.TraceID == traceID) != traced {
			t.Errorf("%s in the trace %v", e.Event, e.TraceID)
		}
		stack.Want(t, e.DurationMS != nil, e.Event == "scan", "%s has a duration", e.Event)
	}
	stack.Want(t, order, []string{"created", "uploaded", "processing", "scan", "completed"}, "order")
	for name, p := range map[string]*stack.Process{"server": server.Process, "worker": worker.Process} {
		if !strings.Contains(p.Output(), "trace_id="+traceID) {
			t.Errorf("the %s logs nothing in the trace:\n%s", name, p.Output())
		}
	}
}

// A connection drops, another request takes the upload over, and the client goes on: the timeline has it so.
func TestTimelineOfDrops(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.serves(t) // whose count of received bytes is this test's alone
	photo := stack.Photo(stack.PhotoConfig{Seed: 14})
	at := u.create(r, len(photo), "filetype", "image/jpeg")
	breaking := func(from, to int, end func(*stall)) {
		t.Helper()
		before := r.metric(t, "tramo_upload_received_bytes_total")
		sending := u.stall(at, from, photo[from:to])
		r.awaitMetric(t, "tramo_upload_received_bytes_total", before+float64(to-from))
		end(sending)
		sending.answer()
	}
	breaking(0, 100_000, (*stall).hangUp)
	stack.Until(t, "kept bytes", func() bool { return u.get(at).Offset == 100_000 })
	breaking(100_000, 250_000, func(s *stall) {
		defer s.client.Close()
		stack.Until(t, "hand-over", func() bool { return u.offset(tramo.replicas[1].URL+"/api/uploads/"+idOf(at)) == 250_000 })
	})
	u.patch(at, 250_000, photo[250_000:])
	u.await(at)

	var told []string
	for _, e := range u.timeline(at, "100") {
		if e.Event != "received" && e.Event != "resumed" {
			continue
		}
		line := fmt.Sprint(e.Event, " ", *e.Offset)
		if e.Event == "received" {
			line += fmt.Sprintf(" %s %.0f", e.Detail["ended"], e.Detail["bytes"])
		}
		told = append(told, line)
	}
	want := []string{
		"received 100000 connection_lost 100000", "resumed 100000", "received 250000 taken_over 150000",
		"resumed 250000", fmt.Sprintf("received %d whole %d", len(photo), len(photo)-250_000),
	}
	stack.Want(t, told, want, "timeline")
}

// Answers without a trace of the client's begin one, errors and the page's too; a broken traceparent is none.
func TestTraceOfEveryAnswer(t *testing.T) {
	t.Parallel()
	u, nobody := newUser(t), user{t: t}
	seen := make(map[string]bool)
	for _, a := range []answer{
		u.do("GET", tramo.replicas[0].URL+"/api/uploads", nil),
		u.do("GET", tramo.replicas[0].URL+"/api/uploads", nil, "traceparent", "00-xyz"),
		u.do("POST", tramo.replicas[0].URL+"/api/uploads", nil),
		nobody.do("GET", tramo.replicas[0].URL+"/api/uploads", nil),
		nobody.do("GET", tramo.replicas[0].URL+"/", nil),
	} {
		parts := strings.Split(a.header.Get("traceresponse"), "-")
		if len(parts) != 4 || len(parts[1]) != 32 || seen[parts[1]] {
			t.Errorf("%d: traceresponse %v", a.status, parts)
			continue
		}
		seen[parts[1]] = true
	}
}

// What is asked for wrongly, or by a stranger, is a problem.
func TestBadTimelineRequests(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	at := u.create(tramo.replicas[0], 10)
	for query, want := range map[string]int{
		"": 200, "?limit=1&cursor=9223372036854775807": 200, "?limit=0": 400, "?limit=501": 400, "?cursor=x": 400, "?cursor=-1": 400,
	} {
		a := u.do("GET", at+"/timeline"+query, nil).want(t, want, "")
		if want != 200 {
			a.problem(t)
		}
	}
	unknown := tramo.replicas[0].URL + "/api/uploads/01890a5d-ac96-774b-bcce-b302099a8057/timeline"
	for _, a := range []answer{newUser(t).do("GET", at+"/timeline", nil), u.do("GET", unknown, nil), u.do("GET", at+"x/timeline", nil)} {
		a.want(t, http.StatusNotFound, "").problem(t)
	}
}
