package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// call makes a request of the JSON API and decodes the answer, if it is one.
func (u user) call(method, url, body string, into any) answer {
	u.t.Helper()
	a := u.do(method, url, strings.NewReader(body), "Content-Type", "application/json", "Tus-Resumable", "")
	if into != nil && a.status < 300 {
		if err := json.Unmarshal(a.body, into); err != nil {
			u.t.Fatalf("%s %s: %d %s", method, url, a.status, a.body)
		}
	}
	return a
}

type endpoint struct {
	ID             uuid.UUID
	URL            string
	Types          []string
	Enabled        bool
	Secret         *string
	DisabledReason *string `json:"disabled_reason"`
	PreviousUntil  *string `json:"previous_secret_until"`
}

// A manager adds, reads, changes, rotates, tests and deletes an endpoint. Only the answers to creation and rotation have the
// secret. The audit log has each change, without the secret and the token in the URL.
func TestWebhookEndpoints(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user.as(s, "jefa", tenant.Constructora)
	at := s.url + "/api/webhooks"
	var made, got endpoint
	a := u.call("POST", at, `{"url":"https://93.184.215.14/in?token=geheim","types":["upload.completed"],"description":"ERP"}`, &made).want(t, 201, "")
	a.wantHeader(t, "Cache-Control", "no-store")
	a.wantHeader(t, "Location", "/api/webhooks/"+made.ID.String())
	if made.Secret == nil || !strings.HasPrefix(*made.Secret, "whsec_") || !made.Enabled || len(made.Types) != 1 {
		t.Errorf("created %s", a.body)
	}
	one := at + "/" + made.ID.String()
	for _, url := range []string{at, one, one + "/deliveries"} {
		u.call("GET", url, "", nil).want(t, 200, "").wantNoText(t, "whsec_", "secret\":")
	}
	u.call("PATCH", one, `{"types":null,"enabled":false}`, &got).want(t, 200, "")
	if got.Types != nil || got.Enabled || got.DisabledReason == nil || *got.DisabledReason != "request" || got.URL != made.URL {
		t.Errorf("changed to %+v", got)
	}
	u.call("POST", one+"/test", "", nil).want(t, 409, "webhook-disabled")
	u.call("POST", one+"/deliveries/replay", `{"since":"2026-01-01T00:00:00Z"}`, nil).want(t, 409, "webhook-disabled")
	u.call("PATCH", one, `{"enabled":true}`, &got).want(t, 200, "")
	if !got.Enabled || got.DisabledReason != nil {
		t.Errorf("enabled it is %+v", got)
	}
	a = u.call("POST", one+"/rotate", `{"overlap_seconds":60}`, &got)
	if a.want(t, 200, ""); got.Secret == nil || *got.Secret == *made.Secret || got.PreviousUntil == nil {
		t.Errorf("rotated to %s", a.body)
	}
	var d struct{ ID uuid.UUID }
	u.call("POST", one+"/test", "", &d).want(t, 202, "")
	s.exec(t, `update webhook_deliveries set state = 'dead', next_attempt_at = null, ended_at = now()`)
	var list struct {
		Items []struct {
			ID    uuid.UUID
			Type  string
			State string
		}
		Next *string
	}
	u.call("GET", one+"/deliveries?state=dead&limit=1", "", &list).want(t, 200, "")
	if len(list.Items) != 1 || list.Items[0].ID != d.ID || list.Items[0].Type != "webhook.test" || list.Next == nil {
		t.Errorf("dead letters are %+v", list)
	}
	u.call("GET", one+"/deliveries?cursor="+d.ID.String(), "", &list).want(t, 200, "")
	if len(list.Items) != 0 {
		t.Errorf("behind the last there are %+v", list)
	}
	u.call("POST", one+"/deliveries/"+d.ID.String()+"/replay", "", nil).want(t, 202, "")
	u.call("GET", one+"/deliveries?state=pending", "", &list).want(t, 200, "")
	if len(list.Items) != 1 {
		t.Errorf("after the replay there are pending %+v", list)
	}
	u.call("DELETE", one, "", nil).want(t, 204, "")
	u.call("GET", one, "", nil).want(t, 404, "not-found")
	log := value[string](t, s, `select string_agg(action || ' ' || actor || ' ' || detail, E'\n' order by seq) from audit where action like 'webhook.%'`)
	for _, action := range []string{"create", "update", "rotate", "test", "replay", "delete"} {
		if !strings.Contains(log, "webhook."+action+" jefa") {
			t.Errorf("no %s in the audit log:\n%s", action, log)
		}
	}
	if strings.Contains(log, "geheim") || strings.Contains(log, "whsec_") {
		t.Errorf("the audit log tells a secret:\n%s", log)
	}
}

// Only managers whose token covers all projects have access. Endpoints of another tenant do not exist.
func TestWebhooksOfOtherTenants(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	at := s.url + "/api/webhooks"
	owner := s.user.as(s, "jefa", tenant.Constructora)
	var made endpoint
	owner.call("POST", at, `{"url":"https://93.184.215.14/in"}`, &made).want(t, 201, "")
	var d struct{ ID uuid.UUID }
	owner.call("POST", at+"/"+made.ID.String()+"/test", "", &d).want(t, 202, "")
	before := s.webhookRows(t)
	investor := s.user.who
	investor.Role = tenant.Inversionista
	stranger := s.newTenant(t).as(s, "jefa", tenant.Constructora)
	routes := func(id, delivery uuid.UUID) [][3]string {
		one := at + "/" + id.String()
		return [][3]string{
			{"GET", one, ""}, {"PATCH", one, `{"url":"https://93.184.215.14/mine"}`}, {"PATCH", one, `{"enabled":false}`}, {"DELETE", one, ""},
			{"POST", one + "/rotate", ""}, {"POST", one + "/test", ""}, {"GET", one + "/deliveries", ""},
			{"POST", one + "/deliveries/replay", `{"since":"2026-01-01T00:00:00Z"}`},
			{"POST", one + "/deliveries/" + delivery.String() + "/replay", ""},
		}
	}
	nothing := routes(uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7()))
	for i, r := range routes(made.ID, d.ID) {
		a, b := stranger.call(r[0], r[1], r[2], nil), stranger.call(nothing[i][0], nothing[i][1], nothing[i][2], nil)
		a.want(t, 404, "not-found")
		if !bytes.Equal(anyID.ReplaceAll(a.body, nil), anyID.ReplaceAll(b.body, nil)) || a.status != b.status {
			t.Errorf("%s %s: %d %s, but for nothing %d %s", r[0], r[1], a.status, a.body, b.status, b.body)
		}
		for _, u := range []user{s.user, s.as(t, investor)} {
			u.call(r[0], r[1], r[2], nil).want(t, 403, "forbidden")
		}
	}
	for _, u := range []user{s.user, s.as(t, investor)} {
		u.call("POST", at, `{"url":"https://93.184.215.14/"}`, nil).want(t, 403, "forbidden")
		u.call("GET", at, "", nil).want(t, 403, "forbidden")
	}
	var list struct{ Items []endpoint }
	stranger.call("GET", at, "", &list).want(t, 200, "")
	if len(list.Items) != 0 {
		t.Errorf("another tenant sees %+v", list)
	}
	stack.Want(t, s.webhookRows(t), before, "rows")
}

func (s *site) webhookRows(t *testing.T) string {
	t.Helper()
	return value[string](t, s, `select coalesce(string_agg(r, E'\n' order by r), '') from (
		select to_jsonb(e)::text r from webhook_endpoints e union all select to_jsonb(x)::text from webhook_secrets x
		union all select to_jsonb(d)::text from webhook_deliveries d) rows`)
}

// Requests are validated, and refusals say what to do.
func TestWebhookBadRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user.as(s, "jefa", tenant.Constructora)
	at := s.url + "/api/webhooks"
	var made endpoint
	u.call("POST", at, `{"url":"https://93.184.215.14/in"}`, &made).want(t, 201, "")
	one := at + "/" + made.ID.String()
	for _, c := range []struct {
		method, url, body string
		status            int
		problem           string
	}{
		{"POST", at, `{"url":"https://10.0.0.1/"}`, 422, "webhook-url"},
		{"POST", at, `{"url":"http://93.184.215.14/"}`, 422, "webhook-url"},
		{"POST", at, `{}`, 422, "webhook-url"},
		{"POST", at, ``, 422, "webhook-url"},
		{"POST", at, `{"url":"https://93.184.215.14/","types":["upload.eaten"]}`, 400, "bad-request"},
		{"POST", at, `{"url":"https://93.184.215.14/","types":["webhook.test"]}`, 400, "bad-request"},
		{"POST", at, `{"url":"https://93.184.215.14/","secret":"mine"}`, 400, "bad-request"},
		{"POST", at, `{"url":"https://93.184.215.14/"}{}`, 400, "bad-request"},
		{"POST", at, `[]`, 400, "bad-request"},
		{"POST", at, `{"url":"https://93.184.215.14/","description":"` + strings.Repeat("x", 501) + `"}`, 400, "bad-request"},
		{"PATCH", one, `{"url":"https://127.0.0.1/"}`, 422, "webhook-url"},
		{"PATCH", one, `{"types":"all"}`, 400, "bad-request"},
		{"PATCH", one, `{"types":["upload.eaten"]}`, 400, "bad-request"},
		{"POST", one + "/rotate", `{"overlap_seconds":-1}`, 400, "bad-request"},
		{"POST", one + "/rotate", `{"overlap_seconds":604801}`, 400, "bad-request"},
		{"POST", one + "/deliveries/replay", `{}`, 400, "bad-request"},
		{"POST", one + "/deliveries/replay", `{"since":"yesterday"}`, 400, "bad-request"},
		{"GET", one + "/deliveries?state=lost", "", 400, "bad-request"},
		{"GET", one + "/deliveries?cursor=x", "", 400, "bad-request"},
		{"GET", at + "/x", "", 404, "not-found"},
	} {
		u.call(c.method, c.url, c.body, nil).want(t, c.status, c.problem)
		if t.Failed() {
			t.Fatalf("%s %s %s", c.method, c.url, c.body)
		}
	}
	for i := 1; i < webhook.MaxEndpoints; i++ {
		u.call("POST", at, fmt.Sprintf(`{"url":"https://93.184.215.14/%d"}`, i), nil).want(t, 201, "")
	}
	u.call("POST", at, `{"url":"https://93.184.215.14/more"}`, nil).want(t, http.StatusConflict, "too-many-webhooks")
}

// The upload in a webhook equals the answer of GET, field by field.
func TestWebhookBodyMatchesGET(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	url := s.user.create(1000, "Upload-Metadata", metadata("filename", "a.jpg", "filetype", "image/jpeg", "client_id", "c1", "batch", "lunes"))
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'infected', failure_detail = 'Eicar',
		sha256 = decode(repeat('ab', 32), 'hex'), uploaded_at = now(), completed_at = now(), detected_type = 'image/png'`)
	var got, told map[string]any
	s.user.call("GET", url, "", &got).want(t, 200, "")
	ctx := tenant.With(t.Context(), s.user.who)
	stack.Must(t, s.API.InTenant(ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(ctx, idOf(url))
		if err != nil {
			return err
		}
		b, err := json.Marshal(webhook.Describe(u))
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &told)
	}))
	if len(told) < 13 {
		t.Errorf("told only %v", told)
	}
	for name, value := range told {
		if value == nil && name != "batch_id" || !reflect.DeepEqual(got[name], value) {
			t.Errorf("%s is %v, and GET tells %v", name, value, got[name])
		}
	}
}

// A NUL character in any text of any JSON body is a mistake of the client's, on every route; an escaped backslash before its
// name is none.
func TestNULInJSON(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user.as(s, "jefa", tenant.Constructora)
	for path, body := range map[string]string{
		"POST /api/webhooks":                 `{"url":"https://93.184.215.14/","description":"a\u0000b"}`,
		"POST /api/webhooks ":                `{"url":"https://93.184.215.14/","types":["\u0000"]}`,
		"POST /api/erasures":                 `{"user_id":"\u0000"}`,
		"POST /api/admin/dead-letters/retry": `{"step":"\u0000"}`,
	} {
		method, path, _ := strings.Cut(strings.TrimSpace(path), " ")
		u.call(method, s.url+path, body, nil).want(t, 400, "bad-request").wantText(t, "NUL")
	}
	u.call("POST", s.url+"/api/batches", `{"name":"\u0000","uploads":[]}`, nil).want(t, 422, "bad-batch").wantText(t, "NUL")
	u.call("POST", s.url+"/api/batches", `{"name":"x","uploads":[{"client_id":"a","size":1,"filename":"a\u0000.jpg"}]}`, nil).want(t, 422, "bad-manifest").wantText(t, `"index":0`)
	u.call("POST", s.url+"/api/webhooks", `{"url":"https://93.184.215.14/","description":"C:\\u0000"}`, nil).want(t, 201, "")
}

// Requests for events count towards the rate of their user, whether a token or a ticket opens the stream.
func TestEventsCountTowardsTheUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(_ *server.Config, p *server.Parts) {
		limits, err := ratelimit.New(ratelimit.Rates{User: ratelimit.Rate{PerMinute: 1, Burst: 3}}, nil, prometheus.NewRegistry(), p.Log)
		stack.Must(t, err)
		p.Limits = limits
	})
	ana, ben := s.user, s.user.as(s, "ben", tenant.Empleado)
	for range 3 {
		ana.do("GET", s.url+live.Path+"?upload=x", nil).want(t, 400, "bad-request")
	}
	ana.do("GET", s.url+live.Path, nil).want(t, 429, "rate-limited")
	ana.do("GET", s.url+live.Path+"?"+query("ticket", s.ticket(t, ana)), nil, "Authorization", "").want(t, 429, "rate-limited")
	for range 3 {
		ben.do("GET", s.url+live.Path+"?upload=x&"+query("ticket", s.ticket(t, ben)), nil, "Authorization", "").want(t, 400, "bad-request")
	}
	ben.do("GET", s.url+live.Path, nil).want(t, 429, "rate-limited")
}
