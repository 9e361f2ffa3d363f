package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// The totals of a batch are sent while its uploads change, at most once a second, then when they have ended and the batch
// is complete, and when it is renamed. An investor receives it once it is complete; a user with other projects never does.
func TestLiveBatches(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	boss := s.user.as(s, "jefa", tenant.Constructora)
	all := s.user.listen(s.url, "")
	investor := s.user.as(s, "inv", tenant.Inversionista).listen(s.url, "")
	bea := s.user.as(s, "bea", tenant.Empleado, "other")
	elsewhere := bea.listen(s.url, query("ticket", s.ticket(t, bea)))
	for _, l := range []*listening{all, investor, elsewhere} {
		l.ready()
	}
	made := readAs[filed](t, s.user.post(s.user.batches(), obj{"project": "torre", "name": "lunes", "uploads": entries(2, 10)}), 201)
	id := made.Batch.ID
	type batch struct{ Name, State string }
	last := func(l *listening, state, name string) (times int) {
		t.Helper()
		l.until("batch "+state+" "+name, func(e event, j saying) bool {
			var b batch
			stack.Must(t, json.Unmarshal(e.Data, &b))
			if e.Event != "batch" || j.ID != id {
				return false
			}
			times++
			return b.State == state && b.Name == name
		})
		return times
	}
	last(all, "open", "lunes")
	began := time.Now()
	s.ends(t, s.user, made.Uploads[0].URL, made.Uploads[1].URL)
	if n, most := last(all, "completed", "lunes"), 2+int(time.Since(began)/time.Second); n > most {
		t.Errorf("it was told %d times in %s", n, time.Since(began))
	}
	listed := s.user.do("GET", s.url+"/api/batches", nil)
	es := s.user.listen(s.url, query("batch", id.String())).ready()
	page := readAs[struct{ Items []json.RawMessage }](t, listed, 200)
	found := false
	for _, e := range es {
		found = found || e.Event == "batch" && len(page.Items) == 1 && string(e.Data) == string(page.Items[0])
	}
	if !found {
		t.Errorf("GET tells %s\na listener's snapshot %v", listed.body, names(es))
	}
	stack.Want(t, last(investor, "completed", "lunes"), 1, "how often an investor was told of a batch, once of which it was complete")
	boss.do("PATCH", s.url+"/api/batches"+"/"+id.String(), strings.NewReader(`{"name":"martes"}`), "Content-Type", "application/json").want(t, 200, "")
	last(all, "completed", "martes")
	marker := bea.create(10, "Upload-Metadata", metadata("project", "other"))
	if es := elsewhere.upload(idOf(marker), "pending"); len(es) != 1 {
		t.Errorf("with another project: %v", names(es))
	}
}

// A complete batch is announced to all who may see it.
func TestLiveBatchAnnouncement(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	l := s.user.listen(s.url, query("project", "torre"))
	l.ready()
	url := s.user.create(10, "Upload-Metadata", metadata("project", "torre", "batch", "lunes"))
	s.ends(t, s.user, url)
	l.until("batch.completed", func(e event, j saying) bool { return e.Event == "announcement" && j.Type == "batch.completed" })
}
