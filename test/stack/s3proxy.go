package stack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is what becomes of a request to S3. The zero Fault lets it pass.
type Fault struct {
	// After has S3 do what was asked before the fault; without it a request that Status or Cut ends never reaches S3.
	After bool
	// Delay holds the request back, or with After the answer. A delayed request is taken whole before the wait and
	// then reaches S3 even if its client has given up, as one that a network has kept.
	Delay time.Duration
	// Hold is called in place of a delay before the request is sent to S3, which happens when Hold returns; Answered once S3
	// has answered, before its client is. Either may be nil.
	Hold, Answered func()
	// Status, such as 503, answers in place of S3, with Code in the error document; by default InternalError. 200 answers
	// with nothing.
	Status int
	Code   string
	// Change alters S3's answer before the client sees it; nil for none. Other stores answer in many ways: see [NoETag].
	Change func(*http.Response)
	// Cut closes the connection without an answer.
	Cut bool
}

func (f Fault) ends() bool { return f.Status != 0 || f.Cut }

// S3Proxy stands between clients and an S3 server that is addressed by path. It knows what each request asks for, by the
// names that the S3 API gives its actions, counts, and lets chosen requests go wrong. Bodies stream through, and Host is
// passed on as it was signed.
type S3Proxy struct {
	listener net.Listener
	server   *http.Server
	proxy    *httputil.ReverseProxy
	stopping context.Context
	stop     context.CancelFunc
	latency  atomic.Int64 // nanoseconds

	mu     sync.Mutex
	counts map[string]int
	bytes  map[string]int64
	flying int
	choose func(kind string, n int) Fault
}

// NewS3Proxy listens on a free loopback port and passes everything on to target, an http URL.
func NewS3Proxy(target string) (*S3Proxy, error) {
	upstream, err := url.Parse(target)
	if err != nil || upstream.Host == "" {
		return nil, fmt.Errorf("start a proxy to S3: %q is not an http URL", target)
	}
	p := &S3Proxy{counts: map[string]int{}, bytes: map[string]int64{}}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start a proxy to S3: %w", err)
	}
	p.stopping, p.stop = context.WithCancel(context.Background())
	p.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = upstream.Scheme, upstream.Host
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Expect") // we have asked for the body already
		},
		Transport: &http.Transport{
			DisableCompression:  true, // it would add a header that was not signed
			MaxIdleConnsPerHost: 1024,
			ReadBufferSize:      copySize,
			WriteBufferSize:     copySize,
		},
		BufferPool:     &bufferPool{},
		ModifyResponse: p.answered,
		// S3 is down, or the client has gone.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go func() { _ = p.server.Serve(p.listener) }() // ends with Stop
	return p, nil
}

// Endpoint returns the proxy's URL, to be used in place of the S3 server's.
func (p *S3Proxy) Endpoint() string { return "http://" + p.listener.Addr().String() }

// SetLatency delays each request from now on by d before it is sent on.
func (p *S3Proxy) SetLatency(d time.Duration) { p.latency.Store(int64(d)) }

// Fault lets choose decide about each request from now on: n says that it is the n-th of its kind since Reset, counted
// from 1. Nil ends all faults.
func (p *S3Proxy) Fault(choose func(kind string, n int) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose = choose
}

// Counts returns how many requests there were since Reset, by kind, failed ones included.
func (p *S3Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Bytes returns the bytes in the bodies of requests and answers since Reset, by kind.
func (p *S3Proxy) Bytes() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.bytes)
}

// InFlight returns how many requests are on their way, those held back for a client that has gone included.
func (p *S3Proxy) InFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flying
}

// Reset forgets what was counted.
func (p *S3Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.counts)
	clear(p.bytes)
}

// Stop ends the proxy and every connection through it. It may be called twice.
func (p *S3Proxy) Stop() {
	p.stop()
	_ = p.server.Close() // the listener's, which may be closed already
	p.proxy.Transport.(*http.Transport).CloseIdleConnections()
}

// call is one request on its way.
type call struct {
	kind  string
	fault Fault
}

type callKey struct{}

// ServeHTTP implements http.Handler.
func (p *S3Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := p.begin(r)
	defer p.end()
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &counted{ReadCloser: r.Body, proxy: p, kind: c.kind}
	}
	p.wait(r.Context(), time.Duration(p.latency.Load()))
	if !c.fault.After {
		if c.fault.Delay > 0 || c.fault.Hold != nil {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler) // cut off by the client
			}
			// S3 gets it, also if its client has gone.
			r = r.WithContext(p.stopping)
			r.Body = io.NopCloser(bytes.NewReader(body))
			p.wait(p.stopping, c.fault.Delay)
			if c.fault.Hold != nil {
				c.fault.Hold()
			}
		}
		if c.fault.ends() {
			// An answer before the body is read would reset the connection, and be lost with it.
			_, _ = io.Copy(io.Discard, r.Body)
			c.fault.answer(w)
			return
		}
	}
	p.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
}

// begin counts a request and asks what becomes of it.
func (p *S3Proxy) begin(r *http.Request) *call {
	c := &call{kind: kindOf(r)}
	p.mu.Lock()
	p.counts[c.kind]++
	p.flying++
	n, choose := p.counts[c.kind], p.choose
	p.mu.Unlock()
	if choose != nil {
		c.fault = choose(c.kind, n)
	}
	return c
}

func (p *S3Proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
}

// answered sees S3's answer before the client does.
func (p *S3Proxy) answered(res *http.Response) error {
	c := res.Request.Context().Value(callKey{}).(*call)
	res.Body = &counted{ReadCloser: res.Body, proxy: p, kind: c.kind}
	if c.fault.Answered != nil {
		c.fault.Answered()
	}
	if c.fault.Change != nil {
		c.fault.Change(res)
	}
	if !c.fault.After {
		return nil
	}
	p.wait(res.Request.Context(), c.fault.Delay)
	if !c.fault.ends() {
		return nil
	}
	// S3 may be done only when its answer is: that of CompleteMultipartUpload begins early.
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if c.fault.Cut {
		panic(http.ErrAbortHandler)
	}
	body := c.fault.document()
	res.StatusCode, res.Header = c.fault.Status, http.Header{"Content-Type": {"application/xml"}}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

func (p *S3Proxy) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.stopping, cancel)()
	pause(ctx, d)
}

func (f Fault) answer(w http.ResponseWriter) {
	if f.Cut {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	_, _ = w.Write(f.document()) // the client may have gone
}

func (f Fault) document() []byte {
	if f.Status == http.StatusOK {
		return nil
	}
	code := f.Code
	if code == "" {
		code = "InternalError"
	}
	var b bytes.Buffer
	b.WriteString(xml.Header + "<Error><Code>")
	_ = xml.EscapeText(&b, []byte(code)) // a buffer cannot err
	b.WriteString("</Code><Message>injected by the proxy</Message></Error>")
	return b.Bytes()
}

// kindOf names a request as the S3 API reference does. What it does not know it calls by its method.
func kindOf(r *http.Request) string {
	q := r.URL.Query()
	asked := "object"
	if _, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); key == "" {
		asked = "bucket"
	}
	if r.Header.Get("X-Amz-Copy-Source") != "" {
		asked = "copy"
	}
	for _, parameter := range []string{"tagging", "uploads", "uploadId", "delete", "list-type"} {
		if q.Has(parameter) {
			asked += "?" + parameter
			break
		}
	}
	return cmp.Or(kinds[r.Method+" "+asked], r.Method)
}

var kinds = map[string]string{
	"GET object?tagging": "GetObjectTagging", "PUT object?tagging": "PutObjectTagging", "DELETE object?tagging": "DeleteObjectTagging",
	"POST object?uploads": "CreateMultipartUpload", "PUT object?uploadId": "UploadPart", "PUT copy?uploadId": "UploadPartCopy",
	"POST object?uploadId": "CompleteMultipartUpload", "DELETE object?uploadId": "AbortMultipartUpload", "GET object?uploadId": "ListParts",
	"PUT object": "PutObject", "PUT copy": "CopyObject", "GET object": "GetObject", "HEAD object": "HeadObject", "DELETE object": "DeleteObject",
	"GET bucket?uploads": "ListMultipartUploads", "POST bucket?delete": "DeleteObjects", "GET bucket?list-type": "ListObjectsV2",
	"PUT bucket": "CreateBucket", "HEAD bucket": "HeadBucket", "DELETE bucket": "DeleteBucket", "GET bucket": "ListObjects",
}

// counted adds what is read from a body to the bytes of its kind.
type counted struct {
	io.ReadCloser
	proxy *S3Proxy
	kind  string
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.proxy.mu.Lock()
		c.proxy.bytes[c.kind] += int64(n)
		c.proxy.mu.Unlock()
	}
	return n, err
}

const copySize = 64 << 10

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, copySize)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put(&buf) }
