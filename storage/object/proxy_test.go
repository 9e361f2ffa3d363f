package object_test

import (
	"bytes"
	"context"
	"github.com/tramo/tramo/test/stack"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// The kinds of requests that a proxy tells apart.
const (
	putObject      = "PutObject"
	getObject      = "GetObject"
	headObject     = "HeadObject"
	deleteObject   = "DeleteObject"
	createUpload   = "CreateMultipartUpload"
	uploadPart     = "UploadPart"
	copyPart       = "UploadPartCopy"
	completeUpload = "CompleteMultipartUpload"
	abortUpload    = "AbortMultipartUpload"
)

func kindOf(r *http.Request) string {
	q := r.URL.Query()
	switch upload := q.Has("uploadId"); {
	case r.Header.Get("X-Amz-Copy-Source") != "":
		return copyPart
	case r.Method == http.MethodPut && upload:
		return uploadPart
	case r.Method == http.MethodPost && q.Has("uploads"):
		return createUpload
	case r.Method == http.MethodPost && upload:
		return completeUpload
	case r.Method == http.MethodDelete && upload:
		return abortUpload
	}
	return map[string]string{
		http.MethodPut: putObject, http.MethodGet: getObject, http.MethodHead: headObject, http.MethodDelete: deleteObject,
	}[r.Method]
}

// A proxy stands between one test and S3, counts requests and lets some go wrong.
type proxy struct {
	url string

	mu     sync.Mutex
	counts map[string]int
	rules  []*rule
	choose func(kind string) fault // asked where no rule holds; nil for none
}

// A rule lets one request of a kind go wrong.
type rule struct {
	kind string
	what fault
}

// A fault is what becomes of a request. It may send it on to S3, and answers.
type fault func(w http.ResponseWriter, send func() answer)

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) write(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a client that has gone is none of our business
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	p, upstream := &proxy{counts: map[string]int{}}, stack.Get(t, ground.S3).Endpoint()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // cut off by the client
		}
		p.judge(kindOf(r))(w, func() answer { return sendOn(transport, upstream, r, body) })
	}))
	p.url = server.URL
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// sendOn forwards a request whole, even after its client has gone.
func sendOn(transport *http.Transport, upstream string, r *http.Request, body []byte) answer {
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, upstream+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	req.Header, req.Host, req.ContentLength = r.Header.Clone(), r.Host, int64(len(body))
	req.Header.Del("Expect") // the body is here already
	res, err := transport.RoundTrip(req)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{status: http.StatusBadGateway}
	}
	return answer{res.StatusCode, res.Header, b}
}

func (p *proxy) judge(kind string) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[kind]++
	for i, r := range p.rules {
		if r.kind == kind {
			p.rules = append(p.rules[:i:i], p.rules[i+1:]...)
			return r.what
		}
	}
	if p.choose != nil {
		if f := p.choose(kind); f != nil {
			return f
		}
	}
	return pass
}

// next lets the next request of a kind go wrong; several are used up one after the other.
func (p *proxy) next(kind string, what fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &rule{kind, what})
}

// chooses lets a function decide about every request, until it is nil again.
func (p *proxy) chooses(f func(kind string) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose = f
}

// spent returns how many requests there were since it was last asked, by kind.
func (p *proxy) spent() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	p.counts = map[string]int{}
	return c
}

func pass(w http.ResponseWriter, send func() answer) { send().write(w) }

// refuse answers what the SDK does not try again, and S3 hears nothing.
func refuse(w http.ResponseWriter, _ func() answer) {
	s3Error(http.StatusForbidden, "AccessDenied").write(w)
}

// lose has S3 do it, but the answer gets lost, and for good: the SDK does not try again.
func lose(w http.ResponseWriter, send func() answer) {
	send()
	s3Error(http.StatusForbidden, "AccessDenied").write(w)
}

// hiccup is a 500, which the SDK tries again.
func hiccup(w http.ResponseWriter, _ func() answer) {
	s3Error(http.StatusInternalServerError, "InternalError").write(w)
}

// cutBefore breaks the connection before S3 hears anything, cutAfter after S3 has done it. The SDK tries
// again.
func cutBefore(http.ResponseWriter, func() answer) { panic(http.ErrAbortHandler) }

func cutAfter(_ http.ResponseWriter, send func() answer) {
	send()
	panic(http.ErrAbortHandler)
}

// misrouted is the 404 of something that is not the bucket.
func misrouted(w http.ResponseWriter, _ func() answer) {
	s3Error(http.StatusNotFound, "NoSuchBucket").write(w)
}

func s3Error(status int, code string) answer {
	return answer{status, http.Header{"Content-Type": {"application/xml"}},
		[]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>injected</Message></Error>`)}
}

// A gate holds a request back.
type gate struct {
	reached  chan struct{} // closed when the request is there
	released chan struct{} // close it to let the request go on
	sent     chan struct{} // closed when S3 has answered it
}

func newGate() *gate {
	return &gate{make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

func (g *gate) hold(w http.ResponseWriter, send func() answer) {
	close(g.reached)
	<-g.released
	a := send()
	close(g.sent)
	a.write(w)
}
