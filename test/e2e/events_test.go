package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// An event is a message to a listener.
type event struct {
	name, id string
	data     upload
}

// listen opens a stream of live state and waits until the present state has been sent.
func (u user) listen(r replica) <-chan event {
	u.t.Helper()
	events := u.listenFrom(r, "")
	u.awaitEvent(events, "ready", func(e event) bool { return e.name == "ready" })
	return events
}

// listenFrom opens a stream that goes on from an id. Its events come over the channel until the test or the stream ends.
func (u user) listenFrom(r replica, lastID string) <-chan event {
	u.t.Helper()
	ctx, cancel := context.WithCancel(u.t.Context())
	u.t.Cleanup(cancel)
	late := time.AfterFunc(patience, cancel) // only until the stream has begun
	defer late.Stop()
	req, err := http.NewRequestWithContext(ctx, "GET", r.URL+"/api/events", nil)
	stack.Must(u.t, err)
	req.Header.Set("Authorization", "Bearer "+u.token)
	req.Header.Set("Last-Event-ID", lastID)
	res, err := http.DefaultClient.Do(req) //nolint:bodyclose // the goroutine below closes it
	stack.Must(u.t, err)
	if res.StatusCode != http.StatusOK {
		u.t.Fatalf("listen: %d", res.StatusCode)
	}
	events := make(chan event, 1000)
	go func() {
		defer close(events)
		defer res.Body.Close()
		var e event
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				_ = json.Unmarshal([]byte(value), &e.data) // others than uploads say less
			case "":
				if e.name != "" {
					events <- e
				}
				e = event{}
			}
		}
	}()
	return events
}

// awaitEvent waits for an event and returns the last id that came on the way.
func (u user) awaitEvent(events <-chan event, what string, wanted func(event) bool) (id string) {
	u.t.Helper()
	late := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				u.t.Fatalf("the stream ended before %s", what)
			}
			if e.id != "" {
				id = e.id
			}
			if wanted(e) {
				return id
			}
		case <-late:
			u.t.Fatalf("nothing of %s within %s", what, patience)
		}
	}
}

func (u user) awaitStatus(events <-chan event, url, status string) {
	u.t.Helper()
	u.awaitEvent(events, status, func(e event) bool { return e.name == "upload" && e.data.ID == idOf(url) && e.data.Status == status })
}

// What happens to an upload at one replica, and in the worker, is an event at the other: every state, from the first to
// the last, with the picture that is there then.
func TestEventsCrossReplicas(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	here, there := u.listen(tramo.replicas[0]), u.listen(tramo.replicas[1])
	photo := stack.Photo(stack.PhotoConfig{Width: 640, Height: 480, Seed: 3})
	url := u.create(tramo.replicas[0], len(photo), "filename", "obra.jpg", "filetype", "image/jpeg")
	for _, events := range []<-chan event{here, there} {
		u.awaitStatus(events, url, "pending")
	}
	u.patch(url, 0, photo).want(t, http.StatusNoContent, "")
	for _, events := range []<-chan event{here, there} {
		u.awaitEvent(events, "completed", func(e event) bool {
			return e.data.ID == idOf(url) && e.data.Status == "completed" && len(e.data.Thumbnails) > 0
		})
	}
}

// Kill -9 a server between a commit and its notification: a listener of another server gets the event all the same, because
// that server looks for changes.
func TestEventsOfAKilledServer(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	first, second := in.serves(t), in.serves(t)
	u := in.user(t)
	events := u.listen(second)
	url := u.create(first, 2000)
	u.patch(url, 0, make([]byte, 500))
	u.awaitStatus(events, url, "uploading")
	first.awaitMetric(t, "tramo_upload_received_bytes_total", 500)
	// An offset is sent within a second, and this server has less than that.
	u.patch(url, 500, make([]byte, 700)).want(t, http.StatusNoContent, "")
	first.Kill()
	u.awaitEvent(events, "the offset", func(e event) bool { return e.data.ID == idOf(url) && e.data.Offset == 1200 })
	if n := second.metric(t, "tramo_live_missed_notifications_total"); n == 0 {
		t.Error("it had been told before it was killed: the test has shown nothing")
	}
}

// Restart Postgres while clients listen: the stream stays open, and later changes are sent, at every replica.
func TestEventsOutlivePostgres(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{Postgres: ownPostgres(t)})
	first, second := in.serves(t), in.serves(t)
	u := in.user(t)
	here, there := u.listen(first), u.listen(second)
	before := u.create(first, 1000)
	stack.Must(t, in.Postgres.Restart(t.Context()))
	var after string
	stack.Until(t, "creation", func() bool {
		a, err := u.try(t.Context(), "POST", second.URL+"/api/uploads", nil, "Upload-Length", "1000")
		after = a.header.Get("Location")
		return err == nil && a.status == http.StatusCreated
	})
	for _, events := range []<-chan event{here, there} {
		told := map[string]bool{}
		u.awaitEvent(events, "both uploads", func(e event) bool {
			told[e.data.ID] = true
			return told[idOf(before)] && told[idOf(after)]
		})
	}
}

// A server that gets SIGTERM asks its listeners to come back, and ends within moments; they go on at another, from
// where they were.
func TestEventsMoveOnAtShutdown(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r, err := tramo.serve(stack.Context(t))
	stack.Must(t, err)
	events := u.listen(r)
	url := u.create(r, 1000)
	id := u.awaitEvent(events, "pending", func(e event) bool { return e.data.ID == idOf(url) })
	last := make(chan string, 1)
	go func() {
		for e := range events {
			if e.id != "" {
				id = e.id
			}
		}
		last <- id
	}()
	began := time.Now()
	stack.Must(t, r.Stop())
	if took := time.Since(began); took >= 30*time.Second { // what a server gives to requests that do not end
		t.Errorf("it took %s to stop", took)
	}
	u.do("DELETE", tramo.replicas[0].at(url), nil)
	events = u.listenFrom(tramo.replicas[1], stack.Receive(t, "end of the stream", last))
	first := true
	u.awaitEvent(events, "cancelled", func(e event) bool {
		if first && e.name == "reset" {
			t.Errorf("it had to begin again: %+v", e)
		}
		first = false
		return e.data.ID == idOf(url) && e.data.Status == "cancelled"
	})
}
