package dev

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A program that waits for S3 is asked twenty times a second, and gives its reasons in turn: each is printed once.
func TestWaitingIsSaidOnce(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n := asked.Add(1); {
		case n > 20:
		case n%2 == 0:
			http.Error(w, "connection refused", http.StatusServiceUnavailable)
		default:
			http.Error(w, "tried again in a moment", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(ops.Close)
	p := &program{cfg: stack.ProcessConfig{Path: "/bin/sleep", Args: []string{"600"}, Name: "tramo serve"}, ops: ops.URL}
	stack.Must(t, p.Restart(t.Context()))
	t.Cleanup(p.Kill)
	var out bytes.Buffer
	stack.Must(t, p.awaitReady(stack.Context(t), &console{w: &out}))
	if n := strings.Count(out.String(), "waiting for tramo serve"); n != 2 {
		t.Errorf("it says %d times what it waits for:\n%s", n, out.String())
	}
}
