package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	neturl "net/url"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// tampering passes real requests on, and changes their answers.
type tampering func(*http.Response)

func (change tampering) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := tramo.contract.RoundTripper.RoundTrip(r)
	if err == nil {
		change(res)
	}
	return res, err
}

// replaceBody changes an answer's body.
func replaceBody(was, is string) tampering {
	return func(res *http.Response) {
		data, _ := io.ReadAll(res.Body) // what was cut off is not as described either
		res.Body = io.NopCloser(bytes.NewReader(bytes.Replace(data, []byte(was), []byte(is), 1)))
	}
}

// insert begins an answer with text that the server did not send.
func insert(text string) tampering {
	return func(res *http.Response) {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(text), res.Body), res.Body}
	}
}

func setHeader(name, value string) tampering {
	return func(res *http.Response) { res.Header.Set(name, value) }
}

func dropHeader(name string) tampering {
	return func(res *http.Response) { res.Header.Del(name) }
}

func setStatus(status int) tampering {
	return func(res *http.Response) { res.StatusCode = status }
}

// Every kind of difference between an answer and its description is noticed, as is a request that is accepted and not
// described. Without the difference, the same exchange passes.
func TestContractDrift(t *testing.T) {
	t.Parallel()
	tenant, _ := newTenant(t, "1GiB")
	u := tramo.userOf(t, tenant, "marta", "constructora")
	id, err := tramo.Tramo(stack.Context(t), "tenant", "add", tenant, "--if-missing")
	stack.Must(t, err)
	r := tramo.replicas[0]
	mine := u.send(r, stack.PNG(10, 10), "filetype", "image/png", "filename", "a.png")
	open := u.create(r, 10)
	u.await(mine)
	list, events, export := r.URL+"/api/uploads", r.URL+"/api/events", r.URL+"/api/tenants/"+strings.TrimSpace(id)+"/export"
	for name, c := range map[string]struct {
		method, url string
		headers     []string
		tamper      tampering
		notice      string
	}{
		"status":               {"GET", mine, nil, setStatus(206), "no such status"},
		"status of HEAD":       {"HEAD", open, nil, setStatus(206), "no such status"},
		"status of a redirect": {"GET", mine, nil, setStatus(307), "no such status"},
		"new field":            {"GET", mine, nil, replaceBody(`{"id"`, `{"new":1,"id"`), "new"},
		"missing field":        {"GET", mine, nil, replaceBody(`"failure":null,`, ``), "failure"},
		"null":                 {"GET", mine, nil, replaceBody(`"project":"default"`, `"project":null`), "project"},
		"new field, deep":      {"GET", list, nil, replaceBody(`"url":`, `"secret":1,"url":`), "secret"},
		"missing field, deep":  {"GET", list, nil, replaceBody(`"width":`, `"wide":`), "wid"},
		"unknown value":        {"GET", mine, nil, replaceBody(`"completed"`, `"done"`), "status"},
		"not a time":           {"GET", mine, nil, replaceBody(`"created_at":"20`, `"created_at":"on 20`), "created_at"},
		"new header":           {"GET", mine, nil, setHeader("X-New", "1"), "X-New"},
		"new header of HEAD":   {"HEAD", open, nil, setHeader("X-New", "1"), "X-New"},
		"missing header":       {"GET", mine, nil, dropHeader("Cache-Control"), "Cache-Control"},
		"missing in HEAD":      {"HEAD", open, nil, dropHeader("Upload-Offset"), "Upload-Offset"},
		"missing everywhere":   {"GET", list, nil, dropHeader("X-Request-Id"), "X-Request-Id"},
		"wrong header":         {"HEAD", open, nil, setHeader("Upload-Offset", "ten"), "Upload-Offset"},
		"media type":           {"GET", mine, nil, setHeader("Content-Type", "text/html"), "text/html"},
		"no content":           {"OPTIONS", list, nil, func(res *http.Response) { res.Body = io.NopCloser(strings.NewReader("{}")) }, "no content"},
		"new problem":          {"GET", mine + "0", nil, replaceBody("/problems/not-found", "/problems/new"), "type"},
		"field of a problem":   {"GET", mine + "0", nil, replaceBody(`"title"`, `"headline"`), "title"},
		"new route":            {"GET", r.URL + "/api/new", nil, setStatus(200), "no such route"},
		"new method":           {"PUT", mine, nil, setStatus(200), "no such route"},
		"new event":            {"GET", events, nil, insert("event: news\ndata: {}\n\n"), "event"},
		"field of an event":    {"GET", events, nil, insert("event: ready\ndata: {\"complete\":true,\"new\":1}\n\n"), "data"},
		"event without data":   {"GET", events, nil, insert("event: ready\ndata: null\n\ndata: 1\n\n"), "event"},
		"field of a stream":    {"GET", events, nil, insert("kind: ready\n"), "no such field"},
		"line of an export":    {"GET", export, nil, replaceBody(`{"type":"upload"`, `{"type":"photo"`), "photo"},
		"field of an export":   {"GET", export, nil, replaceBody(`"links":{`, `"links":{"new":1,`), "links"},
		"parameter accepted":   {"GET", list + "?sort=size", nil, nil, "sort"},
		"header accepted":      {"GET", list, []string{"X-Sort", "size"}, nil, "X-Sort"},
		"bad value accepted":   {"GET", list + "?limit=0", nil, setStatus(200), "limit"},
		"no token accepted":    {"GET", list, []string{"Authorization", ""}, setStatus(200), "token"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.tamper == nil {
				c.tamper = func(*http.Response) {}
			}
			broken := &contract{RoundTripper: c.tamper, router: tramo.contract.router, problem: tramo.contract.problem, headers: tramo.contract.headers}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := broken.RoundTrip(u.request(t, c.method, c.url, c.headers...).WithContext(ctx))
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Fatal("nothing was noticed")
			}
			if !strings.Contains(err.Error(), c.notice) || broken.kept() == nil {
				t.Errorf("what was noticed is %v", err)
			}
		})
	}
}

// Every kind of difference between a webhook and its description is noticed.
func TestContractDriftOfAWebhook(t *testing.T) {
	t.Parallel()
	tenant, _ := newTenant(t, "1GiB")
	u := tramo.userOf(t, tenant, "office", "constructora")
	url, hooks := newReceiver(t, nil)
	endpoint, _ := u.addWebhook(tramo.replicas[0], url, "null")
	u.do("POST", endpoint+"/test", nil).want(t, http.StatusAccepted, "")
	sent := stack.Receive(t, "webhook", hooks)
	for name, c := range map[string]struct{ was, is, without string }{
		"new field":       {was: `{"type"`, is: `{"new":1,"type"`},
		"missing field":   {was: `"endpoint_id"`, is: `"id"`},
		"another's data":  {was: `webhook.test`, is: `batch.completed`},
		"unknown type":    {was: `webhook.test`, is: `webhook.news`},
		"not a time":      {was: `"timestamp":"20`, is: `"timestamp":"on 20`},
		"missing header":  {without: "Webhook-Signature"},
		"no content type": {without: "Content-Type"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{Method: http.MethodPost, URL: new(neturl.URL), Header: sent.header.Clone()}
			r.Header.Del(c.without)
			broken := &contract{webhook: tramo.contract.webhook}
			err := broken.checkWebhook(r, bytes.Replace(sent.body, []byte(c.was), []byte(c.is), 1))
			if err == nil || broken.kept() == nil {
				t.Errorf("what was noticed is %v", err)
			}
		})
	}
}

func (u user) request(t *testing.T, method, url string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(stack.Context(t), method, url, nil)
	stack.Must(t, err)
	u.addHeaders(r, headers)
	return r
}
