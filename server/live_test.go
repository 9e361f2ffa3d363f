package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// An event is a message as a listener receives it.
type event struct {
	Event string
	ID    string
	Data  json.RawMessage
}

// A saying has the fields of all kinds of messages.
type saying struct {
	ID       uuid.UUID
	Status   string
	Offset   int64
	Reason   string
	Complete bool
	Type     string
}

func (e event) told(t testing.TB) (j saying) {
	t.Helper()
	stack.Must(t, json.Unmarshal(e.Data, &j))
	return j
}

// live replaces the site's server by one that follows the database, as Run does.
func (s *site) live(t testing.TB, shape func(*server.Config)) {
	t.Helper()
	s.url, s.server = s.another(t, shape)
	s.user.uploads = s.url + server.UploadsPath
}

// another starts one more server on the site's database.
func (s *site) another(t testing.TB, shape func(*server.Config)) (string, *server.Server) {
	t.Helper()
	conf := server.DefaultConfig()
	conf.Live.Recheck = time.Hour // tests that poll set it lower
	if shape != nil {
		shape(&conf)
	}
	sv, err := server.New(conf, s.server.Parts)
	stack.Must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	followed := make(chan struct{})
	go func() { sv.Follow(ctx); close(followed) }()
	listening := httptest.NewServer(s.guarded(t, sv))
	t.Cleanup(func() {
		listening.CloseClientConnections()
		listening.Close()
		cancel()
		stack.Receive(t, "end of Follow", followed)
	})
	return listening.URL, sv
}

// A listening is an open stream over either transport.
type listening struct {
	t      testing.TB
	events chan event // closed when the stream ends
	header http.Header
	close  func()
	lastID string // of what next returned last
}

// listen opens a stream of server-sent events.
func (u user) listen(base, query string, headers ...string) *listening {
	u.t.Helper()
	ctx, cancel := context.WithCancel(u.t.Context())
	r := u.request("GET", base+live.Path+"?"+query, nil, headers...).WithContext(ctx)
	res, err := http.DefaultClient.Do(r) //nolint:bodyclose // the goroutine below closes it
	stack.Must(u.t, err)
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		u.t.Fatalf("listen: %d %s", res.StatusCode, b)
	}
	l := &listening{t: u.t, events: make(chan event), header: res.Header, close: cancel}
	u.t.Cleanup(cancel)
	go func() {
		defer close(l.events)
		defer res.Body.Close()
		readEvents(res.Body, func(e event) bool {
			select {
			case l.events <- e:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	return l
}

// readEvents parses server-sent events (WHATWG HTML, section 9.2.6) as far as ours need it. An event without an id has the
// id of the one before.
func readEvents(r io.Reader, yield func(event) bool) {
	var e event
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		name, value, _ := strings.Cut(string(line), ": ")
		switch {
		case len(line) == 0:
			if e.Data != nil && !yield(e) {
				return
			}
			e = event{ID: e.ID}
		case name == "id":
			e.ID = value
		case name == "event":
			e.Event = value
		case name == "data":
			e.Data = append(e.Data, value...)
		}
	}
}

// A refusal is the answer to a WebSocket that was not opened.
type refusal struct {
	status int
	header http.Header
}

// webSocket opens the same stream as a WebSocket.
func (u user) webSocket(base, query string, headers ...string) (*listening, refusal, error) {
	u.t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithCancel(u.t.Context())
	u.t.Cleanup(cancel)
	conn, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+live.Path+"?"+query, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		if res == nil {
			return nil, refusal{}, err
		}
		res.Body.Close()
		return nil, refusal{res.StatusCode, res.Header}, err
	}
	conn.SetReadLimit(1 << 20)
	l := &listening{t: u.t, events: make(chan event), close: cancel}
	go func() {
		defer close(l.events)
		defer conn.CloseNow() //nolint:errcheck // it has ended anyway
		for {
			_, data, err := conn.Read(ctx)
			if err != nil {
				return
			}
			var e event
			if err := json.Unmarshal(data, &e); err != nil {
				u.t.Errorf("frame %q: %v", data, err)
				return
			}
			select {
			case l.events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return l, refusal{}, nil
}

// next returns the next event; ok is false when the stream has ended.
func (l *listening) next() (e event, ok bool) {
	l.t.Helper()
	e = stack.Receive(l.t, "event", l.events)
	if e.ID != "" {
		l.lastID = e.ID
	}
	return e, e.Event != "" // every event has a name
}

// until returns all events up to the first that is wanted, which it includes.
func (l *listening) until(what string, wanted func(event, saying) bool) (all []event) {
	l.t.Helper()
	for {
		e, ok := l.next()
		if !ok {
			l.t.Fatalf("the stream ended before %s; it told %v", what, names(all))
		}
		all = append(all, e)
		if wanted(e, e.told(l.t)) {
			return all
		}
	}
}

func names(es []event) (ns []string) {
	for _, e := range es {
		ns = append(ns, e.Event+" "+string(e.Data[:min(len(e.Data), 120)]))
	}
	return ns
}

func (l *listening) ready() []event {
	l.t.Helper()
	return l.until("ready", func(e event, _ saying) bool { return e.Event == "ready" })
}

func (l *listening) upload(id uuid.UUID, status string) []event {
	l.t.Helper()
	return l.until(id.String()+" "+status, func(e event, j saying) bool {
		return e.Event == "upload" && j.ID == id && j.Status == status
	})
}

// mentions reports whether any event contains the text.
func mentions(es []event, text string) bool {
	for _, e := range es {
		if bytes.Contains(e.Data, []byte(text)) {
			return true
		}
	}
	return false
}

// in acts in storage as the user.
func (s *site) in(t testing.TB, u user, fn func(context.Context, storage.Tx) error) {
	t.Helper()
	ctx := tenant.With(t.Context(), u.who)
	stack.Must(t, s.API.InTenant(ctx, func(tx storage.Tx) error { return fn(ctx, tx) }))
}

func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return q.Encode()
}

// A listener first receives what there is, then ready, then each change: as GET answers it, in order, with the offset while
// bytes arrive; over either transport, whichever server makes the change.
func TestLiveChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	other, _ := s.another(t, nil)
	before := s.user.create(100)
	overSSE := s.user.listen(s.url, "")
	overWS, _, err := s.user.webSocket(other, "", "Authorization", "Bearer "+s.user.token)
	stack.Must(t, err)
	for name, l := range map[string]*listening{"sse": overSSE, "websocket": overWS} {
		first := l.ready()
		if len(first) != 3 || first[0].told(t).Reason != "new" || first[1].told(t).ID != idOf(before) || !first[2].told(t).Complete {
			t.Errorf("%s: first it was told %v", name, names(first))
		}
	}
	if got := overSSE.header; got.Get("Content-Type") != "text/event-stream" || got.Get("X-Accel-Buffering") != "no" || got.Get("Cache-Control") != "no-store, no-transform" {
		t.Errorf("headers %v", got)
	}
	url := s.user.create(300_000)
	s.user.patch(url, 0, reader(noise(100_000))).want(t, 204, "")
	s.user.patch(url, 100_000, reader(noise(100_000))).want(t, 204, "")
	for name, l := range map[string]*listening{"sse": overSSE, "websocket": overWS} {
		l.until(name+" at 200,000", func(_ event, j saying) bool {
			return j.ID == idOf(url) && j.Status == "uploading" && j.Offset == 200_000
		})
	}
	s.user.do("DELETE", url, nil).want(t, 204, "")
	got := s.user.do("GET", url, nil)
	for name, l := range map[string]*listening{"sse": overSSE, "websocket": overWS} {
		es := l.upload(idOf(url), "cancelled")
		if last := es[len(es)-1]; !bytes.Equal(bytes.TrimSpace(got.body), last.Data) || last.ID == "" {
			t.Errorf("%s: GET tells %s\nthe stream told %s, id %q", name, got.body, last.Data, last.ID)
		}
	}
}
