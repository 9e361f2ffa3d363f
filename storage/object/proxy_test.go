package object_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// The kinds of requests that a proxy tells apart.
const (
	putObject      = "PutObject"
	getObject      = "GetObject"
	deleteObject   = "DeleteObject"
	createUpload   = "CreateMultipartUpload"
	uploadPart     = "UploadPart"
	copyPart       = "UploadPartCopy"
	headObject     = "HeadObject"
	listUploads    = "ListMultipartUploads"
	listObjects    = "ListObjectsV2"
	completeUpload = "CompleteMultipartUpload"
	abortUpload    = "AbortMultipartUpload"
)

var (
	// refuse answers with an error that the SDK does not retry. S3 gets no request.
	refuse = stack.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
	// lose lets S3 do it and replaces the answer by an error that the SDK does not retry.
	lose = stack.Fault{After: true, Status: http.StatusForbidden, Code: "AccessDenied"}
	// hiccup is a 500, which the SDK retries.
	hiccup = stack.Fault{Status: http.StatusInternalServerError}
	// cutBefore breaks the connection before S3 gets the request, cutAfter after S3 has done it. The SDK retries.
	cutBefore = stack.Fault{Cut: true}
	cutAfter  = stack.Fault{After: true, Cut: true}
	// misrouted is the 404 of another server.
	misrouted = stack.Fault{Status: http.StatusNotFound, Code: "NoSuchBucket"}
)

// A proxy stands between one test and S3.
type proxy struct {
	*stack.S3Proxy

	mu     sync.Mutex
	rules  []rule
	choose func(kind string, n int) stack.Fault // asked where no rule holds; nil for none
}

// A rule lets one request of a kind go wrong.
type rule struct {
	kind string
	what stack.Fault
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	return newProxyTo(t, stack.Get(t, ground.S3).Endpoint())
}

func newProxyTo(t *testing.T, endpoint string) *proxy {
	t.Helper()
	s3, err := stack.NewS3Proxy(endpoint)
	stack.Must(t, err)
	t.Cleanup(s3.Stop)
	p := &proxy{S3Proxy: s3}
	s3.Fault(p.judge)
	return p
}

func (p *proxy) judge(kind string, n int) stack.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.rules, func(r rule) bool { return r.kind == kind }); i >= 0 {
		what := p.rules[i].what
		p.rules = slices.Delete(p.rules, i, i+1)
		return what
	}
	if p.choose != nil {
		return p.choose(kind, n)
	}
	return stack.Fault{}
}

// next lets the next request of a kind go wrong; several are used up one after the other.
func (p *proxy) next(kind string, what stack.Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, rule{kind, what})
}

// chooses lets a function decide about every request, until it is nil again.
func (p *proxy) chooses(f func(kind string, n int) stack.Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose = f
}

// spent returns how many requests there were since it was last asked, by kind.
func (p *proxy) spent() map[string]int {
	defer p.Reset()
	return p.Counts()
}

// await waits until c is closed or has a value, for [stack.Patience] at most: a request that a failed test holds back must end.
func await(c <-chan struct{}) {
	select {
	case <-c:
	case <-time.After(stack.Patience):
	}
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

func (g *gate) fault() stack.Fault {
	return stack.Fault{
		Hold:     func() { close(g.reached); await(g.released) },
		Answered: func() { close(g.sent) },
	}
}
