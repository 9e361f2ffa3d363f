package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/telemetry"
)

func TestLoggers(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, telemetry.LogConfig{Format: "json", Level: "warn"})
	log.Info("below the level")
	log.Warn("logged", slog.Int("size", 5))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != "logged" || line["size"] != 5.0 {
		t.Errorf("%s: %v", out.String(), err)
	}
	err := telemetry.LogConfig{Format: "xml", Level: "loud"}.Validate()
	if err == nil || !strings.Contains(err.Error(), `TRAMO_LOG_FORMAT: "xml"`) || !strings.Contains(err.Error(), `TRAMO_LOG_LEVEL: "loud"`) {
		t.Errorf("both mistakes: %v", err)
	}
	if err := telemetry.DefaultLogConfig().Validate(); err != nil {
		t.Error(err)
	}
}

// /readyz checks all dependencies at the same time, reports the result of each, and does not wait for one that hangs.
func TestReadiness(t *testing.T) {
	t.Parallel()
	ops := telemetry.Ops{
		Registry:     telemetry.NewRegistry(),
		Log:          slog.New(slog.DiscardHandler),
		CheckTimeout: 50 * time.Millisecond,
		Checks: []telemetry.Check{
			{Name: "good", Ask: func(context.Context) error { return nil }},
			{Name: "bad", Ask: func(context.Context) error { return errors.New("connection refused") }},
			{Name: "slow", Ask: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{Name: "broken", Ask: func(context.Context) error { panic("an answer that nobody expects") }},
		},
	}
	ask := func(path string) (int, map[string]string) {
		w := httptest.NewRecorder()
		ops.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		var found map[string]string
		_ = json.Unmarshal(w.Body.Bytes(), &found) // only /readyz answers JSON
		return w.Code, found
	}
	status, found := ask("/readyz")
	if status != http.StatusServiceUnavailable || found["good"] != "ok" || found["bad"] != "connection refused" || found["slow"] == "ok" || !strings.Contains(found["broken"], "nobody expects") {
		t.Errorf("%d %v", status, found)
	}
	ops.Checks = ops.Checks[:2]
	ops.Checks[1].Optional = true
	if status, found := ask("/readyz"); status != http.StatusOK || found["good"] != "ok" || found["bad"] != "connection refused" {
		t.Errorf("%d %v", status, found)
	}
	for _, path := range []string{"/livez", "/metrics"} {
		if status, _ := ask(path); status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// However often /readyz is asked, the log has each reason once, and that the dependency is back.
func TestReadinessIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var err error
	ops := telemetry.Ops{
		Registry: telemetry.NewRegistry(), Log: slog.New(slog.NewTextHandler(&out, nil)),
		Checks: []telemetry.Check{{Name: "s3", Ask: func(context.Context) error { return err }}},
	}
	ask := func(times int) {
		for range times {
			ops.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/readyz", nil))
		}
	}
	for range 50 { // as a circuit breaker alternates
		err = errors.New("connection refused")
		ask(10)
		err = errors.New("tried again in a moment")
		ask(10)
	}
	err = nil
	ask(10)
	err = errors.New("connection refused")
	ask(10)
	log := out.String()
	for text, want := range map[string]int{"connection refused": 2, "tried again": 1, "ready again": 1, "not ready": 3} {
		if n := strings.Count(log, text); n != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, n, want, log)
		}
	}
}

// Where a token is set, metrics and the reasons of readiness are for those who have it; probes need none.
func TestOpsToken(t *testing.T) {
	t.Parallel()
	token := "0123456789abcdef"
	ops := telemetry.Ops{
		OpsConfig: telemetry.OpsConfig{Listen: ":9090", Token: telemetry.Secret(token)},
		Registry:  telemetry.NewRegistry(),
		Log:       slog.New(slog.DiscardHandler),
		Checks:    []telemetry.Check{{Name: "postgres", Ask: func(context.Context) error { return errors.New("refused") }}},
	}
	if err := ops.Validate(); err != nil {
		t.Error(err)
	}
	if err := (telemetry.OpsConfig{Listen: ":9090", Token: telemetry.Secret(token[1:])}).Validate(); err == nil || strings.Contains(err.Error(), token[1:]) {
		t.Errorf("a short token: %v", err)
	}
	for header, trusted := range map[string]bool{
		"Bearer " + token: true, "": false, "Bearer": false, "Bearer ": false, "Bearer " + token + "x": false, "Basic " + token: false, token: false, //nolint:gocritic // a space is a case
	} {
		ask := func(path string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Authorization", header)
			ops.Handler().ServeHTTP(w, r)
			return w
		}
		if w := ask("/metrics"); (w.Code == http.StatusOK) != trusted || !trusted && (w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "go_")) {
			t.Errorf("%q: /metrics answers %d", header, w.Code)
		}
		if w := ask("/readyz"); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "refused") != trusted {
			t.Errorf("%q: /readyz answers %d %s", header, w.Code, w.Body)
		}
		if w := ask("/livez"); w.Code != http.StatusOK {
			t.Errorf("%q: /livez answers %d", header, w.Code)
		}
	}
}
