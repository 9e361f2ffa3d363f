package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/tramo/tramo/test/stack"
)

// A contract is the server's description of its API, read from the server. It carries the requests of all tests, and
// holds them and their answers against the description.
//
// A request that the server accepts must be one that the description allows; one that it refuses may be anything. An
// answer must always be as described: its status, its headers, its content, no more and no less.
type contract struct {
	http.RoundTripper
	router  routers.Router
	problem *openapi3.Schema
	webhook *openapi3.Operation
	headers map[string]bool // of requests, of one route or another
	mu      sync.Mutex
	broken  []error
}

// sign reads the description at base and lets every client of this process that has no transport of its own go through
// the contract.
func sign(ctx context.Context, base string) (*contract, error) {
	openapi3filter.RegisterBodyDecoder("application/jwk-set+json", openapi3filter.JSONBodyDecoder)
	openapi3filter.RegisterBodyDecoder("application/jwt", openapi3filter.PlainBodyDecoder)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/openapi.yaml", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() // read to its end
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	c := &contract{RoundTripper: http.DefaultTransport, problem: doc.Components.Schemas["Problem"].Value}
	if err := addHeadersOfEveryAnswer(doc); err != nil {
		return nil, err
	}
	if c.router, err = gorillamux.NewRouter(doc); err != nil {
		return nil, err
	}
	c.headers = requestHeaders(doc)
	c.webhook = doc.Webhooks["announcement"].Post
	http.DefaultTransport = c
	return c, nil
}

// requestHeaders are those that some route reads. A client may send them to others: tus-js-client does.
func requestHeaders(doc *openapi3.T) map[string]bool {
	headers := make(map[string]bool)
	add := func(ps openapi3.Parameters) {
		for _, p := range ps {
			if p.Value.In == openapi3.ParameterInHeader {
				headers[http.CanonicalHeaderKey(p.Value.Name)] = true
			}
		}
	}
	for _, item := range doc.Paths.Map() {
		add(item.Parameters)
		for _, op := range item.Operations() {
			add(op.Parameters)
		}
	}
	return headers
}

// addHeadersOfEveryAnswer adds those that the document names once to each answer in it.
func addHeadersOfEveryAnswer(doc *openapi3.T) error {
	data, err := json.Marshal(doc.Extensions["x-headers-of-every-answer"])
	if err != nil {
		return err
	}
	var every openapi3.Headers
	if err := json.Unmarshal(data, &every); err != nil {
		return fmt.Errorf("read x-headers-of-every-answer: %w", err)
	}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, response := range op.Responses.Map() {
				if response.Value.Headers == nil {
					response.Value.Headers = make(openapi3.Headers)
				}
				maps.Copy(response.Value.Headers, every)
			}
		}
	}
	return nil
}

// RoundTrip implements [http.RoundTripper]. A request that breaks the contract fails, and so does the whole run, in case
// that its test does not look at the error.
func (c *contract) RoundTrip(r *http.Request) (*http.Response, error) {
	if !described(r.URL.Path) {
		return c.RoundTripper.RoundTrip(r)
	}
	sent := r.Clone(r.Context())
	var asked []byte
	if r.Body != nil && isJSON(r.Header) {
		var err error
		if asked, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		sent.Body = io.NopCloser(bytes.NewReader(asked))
	}
	res, err := c.RoundTripper.RoundTrip(sent)
	if err != nil {
		return nil, err
	}
	if err := c.check(r, asked, res); err != nil {
		err = c.note(fmt.Errorf("not as described: %s %s was answered %d: %w", r.Method, r.URL.Path, res.StatusCode, err))
		return nil, errors.Join(err, res.Body.Close())
	}
	return res, nil
}

// note keeps a break for the end of the run, and returns it.
func (c *contract) note(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = append(c.broken, err)
	return err
}

// kept reports every break.
func (c *contract) kept() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.broken...)
}

// described reports whether a path is the API's, and not the page's, S3's or a probe's.
func described(path string) bool {
	return slices.ContainsFunc([]string{"/api/", "/openapi.", "/.well-known/", "/problems/"}, func(prefix string) bool {
		return strings.HasPrefix(path, prefix)
	})
}

func (c *contract) check(r *http.Request, asked []byte, res *http.Response) error {
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		return c.checkNoRoute(r, res)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r.Clone(r.Context()), PathParams: params, Route: route, Options: &openapi3filter.Options{
			ExcludeRequestBody: asked == nil, IncludeResponseStatus: true, AuthenticationFunc: authenticate, MultiError: true,
			ExcludeResponseBody: !decodable(res.Header) || r.Method == http.MethodHead,
		},
	}
	in.Request.Body = io.NopCloser(bytes.NewReader(asked))
	if res.StatusCode < http.StatusBadRequest {
		if err := c.checkRequest(in); err != nil {
			return fmt.Errorf("it was accepted, but %w", err)
		}
	}
	if err := checkAnswer(in, res); err != nil {
		return err
	}
	c.watch(route.Operation, res)
	return nil
}

func authenticate(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	if !strings.HasPrefix(in.RequestValidationInput.Request.Header.Get("Authorization"), "Bearer ") {
		return errors.New("it has no token")
	}
	return nil
}

// checkNoRoute wants of what is not described that it is not there.
func (c *contract) checkNoRoute(r *http.Request, res *http.Response) error {
	if !slices.Contains([]int{http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed}, res.StatusCode) {
		return errors.New("there is no such route")
	}
	if r.Method == http.MethodHead {
		return nil
	}
	data, err := keepBody(res)
	if err != nil {
		return err
	}
	var p any
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	return c.problem.VisitJSON(p, openapi3.EnableJSONSchema2020())
}

// checkRequest holds a request that was accepted against its description.
func (c *contract) checkRequest(in *openapi3filter.RequestValidationInput) error {
	params := in.Route.Operation.Parameters
	for name := range in.Request.URL.Query() {
		if params.GetByInAndName(openapi3.ParameterInQuery, name) == nil {
			return fmt.Errorf("there is no parameter %q", name)
		}
	}
	for name := range in.Request.Header {
		if !c.headers[name] && !ofEveryRequest(name) {
			return fmt.Errorf("there is no header %q", name)
		}
	}
	if body := in.Route.Operation.RequestBody; in.Options.ExcludeRequestBody && in.Request.Header.Get("Content-Type") != "" {
		if body == nil || body.Value.Content.Get(in.Request.Header.Get("Content-Type")) == nil {
			return fmt.Errorf("a body of %q is not described", in.Request.Header.Get("Content-Type"))
		}
	}
	return openapi3filter.ValidateRequest(in.Request.Context(), in)
}

// ofEveryRequest reports whether a header is HTTP's own, or one that any request may have.
func ofEveryRequest(name string) bool {
	switch name {
	case "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Content-Length",
		"Content-Type", "Expect", "If-None-Match", "Origin", "Range", "Pragma", "Priority", "Referer", "Tus-Resumable", "User-Agent",
		"Trailer", "Traceparent", "Tracestate", "Upgrade", "X-Request-Id":
		return true
	}
	return strings.HasPrefix(name, "Sec-")
}

// checkAnswer holds an answer against its description.
func checkAnswer(in *openapi3filter.RequestValidationInput, res *http.Response) error {
	response := in.Route.Operation.Responses.Status(res.StatusCode)
	if response == nil {
		return errors.New("there is no such status")
	}
	for name := range res.Header {
		if ofHTTP(name) {
			continue
		}
		if !hasHeader(response.Value.Headers, name) {
			return fmt.Errorf("there is no header %q (%q)", name, res.Header.Get(name))
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: res.StatusCode, Header: res.Header, Options: in.Options,
	}
	if in.Request.Method == http.MethodHead { // whose answers the library takes for right
		in.Request.Method = http.MethodGet
	} else if err := checkContent(response.Value, res); err != nil {
		return err
	}
	if !in.Options.ExcludeResponseBody {
		data, err := keepBody(res)
		if err != nil {
			return err
		}
		out.SetBodyBytes(data)
	}
	return openapi3filter.ValidateResponse(in.Request.Context(), out)
}

// checkContent holds an answer's media type against its description; one without a type must have no content.
func checkContent(response *openapi3.Response, res *http.Response) error {
	contentType := res.Header.Get("Content-Type")
	needed := len(response.Content) > 0
	if optional, _ := response.Extensions["x-content-optional"].(bool); optional && contentType == "" {
		needed = false
	}
	switch {
	case needed && response.Content.Get(contentType) == nil:
		return fmt.Errorf("content of %q is not described", contentType)
	case needed || res.StatusCode == http.StatusSwitchingProtocols:
		return nil
	}
	data, err := keepBody(res)
	if err == nil && len(data) > 0 {
		err = fmt.Errorf("there is no content, but for %.100q", data)
	}
	return err
}

// ofHTTP reports whether a header is the connection's, or described by its answer's media type.
func ofHTTP(name string) bool {
	switch name {
	case "Accept-Ranges", "Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func isJSON(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// decodable reports whether the content is for the contract to read. It is not if it is bytes, or never ends.
func decodable(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return isJSON(h) || err == nil && t == "application/jwt"
}

// keepBody reads an answer's body and leaves it to be read again.
func keepBody(res *http.Response) ([]byte, error) {
	data, err := io.ReadAll(res.Body)
	_ = res.Body.Close() // it has been read
	res.Body = io.NopCloser(bytes.NewReader(data))
	return data, err
}

// watched is a replica whose clients, which are not of this process, are held to the contract too: a proxy of the
// test's sits between. What breaks it is answered 502.
func watched(t *testing.T, at replica) replica {
	t.Helper()
	target, err := url.Parse(at.URL)
	stack.Must(t, err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which the addresses of uploads are made from
		},
		Transport:     http.DefaultTransport,
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	t.Cleanup(proxy.Close)
	return replica{&stack.Replica{Process: at.Process, URL: proxy.URL, Ops: at.Ops}}
}

// checkWebhook holds what a receiver was sent against its description.
func (c *contract) checkWebhook(r *http.Request, body []byte) error {
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	err := openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, Route: &routers.Route{Spec: &openapi3.T{OpenAPI: "3.1.0"}, PathItem: &openapi3.PathItem{}, Operation: c.webhook},
	})
	if err != nil {
		return c.note(fmt.Errorf("not as described: webhook %s: %w", body, err))
	}
	return nil
}

func hasHeader(headers openapi3.Headers, name string) bool {
	for h := range headers {
		if strings.EqualFold(h, name) {
			return true
		}
	}
	return false
}
