package stack_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

func TestProxyCutsAfter(t *testing.T) {
	t.Parallel()
	received := make(chan int64, 1)
	proxy := proxied(t, func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body) // the cut is an error here
		received <- n
	})
	stack.Must(t, proxy.CutAfter(64<<10))
	if err := post(t, proxy.URL(), make([]byte, 1<<20)); err == nil {
		t.Error("a request of 1 MiB passed a cut at 64 KiB")
	}
	if n := stack.Receive(t, "number of bytes", received); n <= 0 || n >= 64<<10 {
		t.Errorf("the server received %d bytes of the body, want some, and fewer than 64 KiB with the headers", n)
	}

	proxy.Clear()
	stack.Must(t, post(t, proxy.URL(), make([]byte, 1<<20)))
	stack.Want(t, stack.Receive(t, "number of bytes", received), 1<<20, "bytes that the server received after Clear")
}

func TestProxyDownAndUp(t *testing.T) {
	t.Parallel()
	proxy := proxied(t, func(http.ResponseWriter, *http.Request) {})
	addr := proxy.Addr()
	proxy.Down()
	if err := post(t, proxy.URL(), nil); err == nil {
		t.Error("a request passed a proxy that is down")
	}
	stack.Must(t, proxy.Up())
	stack.Must(t, post(t, proxy.URL(), nil))
	stack.Want(t, proxy.Addr(), addr, "address after Up")
}

func TestProxyLatency(t *testing.T) {
	t.Parallel()
	proxy := proxied(t, func(http.ResponseWriter, *http.Request) {})
	stack.Must(t, proxy.Latency(time.Hour))
	stack.Must(t, proxy.Latency(80*time.Millisecond)) // replaces the hour
	start := time.Now()
	stack.Must(t, post(t, proxy.URL(), nil))
	if took := time.Since(start); took < 80*time.Millisecond {
		t.Errorf("a request took %s, want at least 80ms", took)
	}
}

func proxied(t *testing.T, handler http.HandlerFunc) *stack.Proxy {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	proxy, err := stack.NewProxy(server.URL)
	stack.Must(t, err)
	t.Cleanup(proxy.Close)
	return proxy
}

func post(t *testing.T, url string, body []byte) error {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(stack.Context(t), http.MethodPost, url, bytes.NewReader(body))
	stack.Must(t, err)
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
