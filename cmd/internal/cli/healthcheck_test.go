package cli_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// A health check says whether the program answers, or with --ready also whether its dependencies do, and why not.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef"
	ops := &telemetry.Ops{OpsConfig: telemetry.OpsConfig{Token: token}, Registry: telemetry.NewRegistry(), Log: slog.New(slog.DiscardHandler), Checks: []telemetry.Check{
		{Name: "s3", Ask: func(context.Context) error { return errors.New("no such bucket") }},
	}}
	s := httptest.NewServer(ops.Handler())
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	stack.Must(t, err)
	h := cli.DefaultHealthcheck(s.Listener.Addr().String())
	ask := func() error { return h.Run(t.Context()) }
	if err := ask(); err != nil {
		t.Errorf("it answers: %v", err)
	}
	h.Ops.Listen = ":" + port // on all addresses
	if err := ask(); err != nil {
		t.Errorf("it answers at %s: %v", h.Ops.Listen, err)
	}
	h.Ready = true
	if err := ask(); err == nil || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "bucket") {
		t.Errorf("unready, without the token: %v", err)
	}
	h.Ops.Token = token
	if err := ask(); err == nil || !strings.Contains(err.Error(), "no such bucket") {
		t.Errorf("unready, with the token: %v", err)
	}
	ops.Checks = nil
	if err := ask(); err != nil {
		t.Errorf("ready: %v", err)
	}
	s.Close()
	if err := ask(); err == nil {
		t.Error("nothing listens, and it is healthy")
	}
}

// A program that hangs is unhealthy when the time is over, before the runtime gives the health check up.
func TestHealthcheckEnds(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(s.Close)
	h := cli.DefaultHealthcheck(s.Listener.Addr().String())
	h.Timeout = 50 * time.Millisecond
	if err := h.Run(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a program that hangs: %v", err)
	}
}
