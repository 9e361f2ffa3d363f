package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tramo/tramo/test/stack"
)

// A hook is a webhook as it arrived.
type hook struct {
	header http.Header
	body   []byte
}

// newReceiver runs a server that webhooks arrive at. answer may be nil.
func newReceiver(t *testing.T, answer http.HandlerFunc) (url string, hooks <-chan hook) {
	t.Helper()
	arrived := make(chan hook, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if err := tramo.contract.checkWebhook(r, body); err != nil {
			t.Error(err)
		}
		arrived <- hook{r.Header, body}
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, arrived
}

// addWebhook registers the URL and returns the endpoint's address and secret.
func (u user) addWebhook(at replica, url, types string) (endpoint, secret string) {
	u.t.Helper()
	a := u.do("POST", at.URL+"/api/webhooks", strings.NewReader(`{"url":"`+url+`","types":`+types+`}`), "Content-Type", "application/json")
	made := decode[struct{ ID, Secret string }](u.t, a, http.StatusCreated)
	return at.URL + "/api/webhooks/" + made.ID, made.Secret
}

// A photo is uploaded, and once it is completed its company's receiver gets an event: signed so that the specification's library
// accepts it, with what GET answers, in the trace that the upload's request brought.
func TestWebhookOfACompletedUpload(t *testing.T) {
	t.Parallel()
	const traceID = "5bf92f3577b34da6a3ce929d0e0e4737"
	name, crew := newTenant(t, "1GiB")
	manager := tramo.userOf(t, name, "office", "constructora")
	url, hooks := newReceiver(t, nil)
	endpoint, secret := manager.addWebhook(tramo.replicas[0], url, `["upload.completed"]`)
	photo := stack.Photo(stack.PhotoConfig{Width: 320, Height: 240, Seed: 77})
	at := crew.create(tramo.replicas[1], len(photo), "filename", "obra.jpg", "filetype", "image/jpeg", "client_id", "c-77")
	crew.do("PATCH", at, strings.NewReader(string(photo)), "Upload-Offset", "0", "Content-Type", octets,
		"traceparent", "00-"+traceID+"-00f067aa0ba902b7-01").want(t, http.StatusNoContent, "")
	h := stack.Receive(t, "webhook", hooks)
	w, err := standardwebhooks.NewWebhook(secret)
	stack.Must(t, err)
	if err := w.Verify(h.body, h.header); err != nil {
		t.Error(err)
	}
	if got := h.header.Get("Traceparent"); !strings.HasPrefix(got, "00-"+traceID+"-") || strings.Contains(got, "0000000000000000") {
		t.Errorf("traceparent is %q", got)
	}
	var told struct {
		Type      string
		Timestamp time.Time
		Data      upload
	}
	stack.Must(t, json.Unmarshal(h.body, &told))
	up := crew.get(at)
	if told.Type != "upload.completed" || told.Data.ID != up.ID || told.Data.Status != "completed" ||
		told.Data.SHA256 != up.SHA256 || told.Data.Filename != "obra.jpg" || told.Data.Size != len(photo) {
		t.Errorf("told %s, and GET tells %+v", h.body, up)
	}
	if strings.Contains(string(h.body), "http") {
		t.Errorf("the webhook carries a link: %s", h.body)
	}
	deliveries := manager.do("GET", endpoint+"/deliveries", nil)
	if !strings.Contains(string(deliveries.body), traceID) || !strings.Contains(string(deliveries.body), h.header.Get("Webhook-Id")) {
		t.Errorf("deliveries are %s", deliveries.body)
	}
}

// A batch ends, and its company's receiver gets the result.
func TestWebhookOfABatch(t *testing.T) {
	t.Parallel()
	name, crew := newTenant(t, "1GiB")
	here := tramo.replicas[0]
	url, hooks := newReceiver(t, nil)
	tramo.userOf(t, name, "office", "constructora").addWebhook(here, url, `["batch.completed", "batch.failed"]`)
	plan := stack.PNG(30, 20)
	f := decode[filedAnswer](t, crew.postJSON(here.URL+"/api/batches", map[string]any{
		"project": "torre", "name": "Torre, martes", "client_id": "martes", "uploads": []map[string]any{
			{"client_id": "plan", "filename": "plan.png", "size": len(plan), "type": "image/png"},
			{"client_id": "broken", "filename": "broken.jpg", "size": 5, "type": "image/jpeg"},
		},
	}), 201)
	crew.patch(f.Uploads[0].URL, 0, plan)
	crew.patch(f.Uploads[1].URL, 0, []byte("photo"))
	var told struct {
		Type string
		Data struct {
			ID, Project, Name string
			ClientID          string `json:"client_id"`
			Uploads           map[string]int
			Bytes             int
		}
	}
	stack.Must(t, json.Unmarshal(stack.Receive(t, "webhook", hooks).body, &told))
	d := told.Data
	if told.Type != "batch.failed" || d.ID != f.Batch.ID || d.Project != "torre" || d.Name != "Torre, martes" || d.ClientID != "martes" ||
		!maps.Equal(d.Uploads, map[string]int{"completed": 1, "failed": 1}) || d.Bytes != len(plan) {
		t.Errorf("told %+v", told)
	}
}

// Kill the worker while a receiver has the webhook and has not answered: another worker sends it again, under the same id,
// and it is then delivered, once.
func TestWebhookOfAKilledWorker(t *testing.T) {
	t.Parallel()
	own := install(t, stack.Installation{})
	own.user(t)
	u := own.userOf(t, "acme", "office", "constructora")
	server := own.serves(t)
	first := own.works(t, "TRAMO_WEBHOOK_TIMEOUT=2s")
	hold := make(chan struct{})
	url, hooks := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	endpoint, secret := u.addWebhook(server, url, "null")
	u.do("POST", endpoint+"/test", nil).want(t, http.StatusAccepted, "")
	before := stack.Receive(t, "webhook", hooks)
	first.Kill()
	close(hold)
	second := own.works(t, "TRAMO_WEBHOOK_TIMEOUT=2s")
	after := stack.Receive(t, "webhook", hooks)
	w, err := standardwebhooks.NewWebhook(secret)
	stack.Must(t, err)
	stack.Must(t, w.Verify(after.body, after.header))
	if b, a := before.header.Get("Webhook-Id"), after.header.Get("Webhook-Id"); b == "" || a != b {
		t.Errorf("sent as %q, then as %q", b, a)
	}
	stack.Until(t, "delivery at the first attempt", func() bool {
		if len(hooks) > 0 {
			t.Fatalf("sent a third time: %s", (<-hooks).body)
		}
		a := u.do("GET", endpoint+"/deliveries", nil)
		return strings.Contains(string(a.body), `"state":"delivered"`) && strings.Contains(string(a.body), `"attempts":1`)
	})
	stack.Must(t, second.Stop())
	stack.Must(t, server.Stop())
}
