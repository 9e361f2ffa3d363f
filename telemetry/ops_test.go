package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
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

// Profiles are served where a setting asks for them, under the token of the metrics, and never the command line.
func TestPprof(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef"
	const profiles = "/debug/pprof/"
	ask := func(c telemetry.OpsConfig, path, sent string) *httptest.ResponseRecorder {
		ops := telemetry.Ops{OpsConfig: c, Registry: telemetry.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		if sent != "" {
			r.Header.Set("Authorization", "Bearer "+sent)
		}
		ops.Handler().ServeHTTP(w, r)
		return w
	}
	for _, path := range []string{"", "heap", "goroutine", "profile?seconds=1", "wall?seconds=1", "trace?seconds=1", "cmdline", "symbol"} {
		if w := ask(telemetry.OpsConfig{Token: token}, profiles+path, token); w.Code != http.StatusNotFound {
			t.Errorf("%s without the setting: %d", path, w.Code)
		}
		for _, other := range []string{"", token + "x"} {
			w := ask(telemetry.OpsConfig{Token: token, Pprof: true}, profiles+path, other)
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer" || w.Body.Len() > 100 {
				t.Errorf("%s with the token %q: %d, %d bytes", path, other, w.Code, w.Body.Len())
			}
		}
	}
	for path, want := range map[string]int{
		"": http.StatusOK, "heap": http.StatusOK, "goroutine?debug=1": http.StatusOK, "profile?seconds=1": http.StatusOK, "wall?seconds=1": http.StatusOK,
		"trace?seconds=1": http.StatusOK, "cmdline": http.StatusNotFound, "wall?seconds=0": http.StatusBadRequest, "wall?seconds=x": http.StatusBadRequest,
	} {
		w := ask(telemetry.OpsConfig{Token: token, Pprof: true}, profiles+path, token)
		if w.Code != want || want == http.StatusOK && w.Body.Len() == 0 {
			t.Errorf("%s: %d, %d bytes, want %d", path, w.Code, w.Body.Len(), want)
		}
	}
	if w := ask(telemetry.OpsConfig{Pprof: true}, profiles+"heap", ""); w.Code != http.StatusOK {
		t.Errorf("where no token is set: %d", w.Code)
	}
}

// A wall profile has the goroutines that only wait, and ends when its client goes.
func TestWallProfile(t *testing.T) {
	t.Parallel()
	waiting, end := make(chan struct{}), make(chan struct{})
	go waitsFor(waiting, end)
	<-waiting
	defer close(end)
	ops := telemetry.Ops{OpsConfig: telemetry.OpsConfig{Pprof: true}, Registry: telemetry.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	ops.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/wall?seconds=1", nil))
	got, err := profile.Parse(w.Body)
	stack.Must(t, err)
	if !slices.ContainsFunc(got.Function, func(f *profile.Function) bool { return strings.HasSuffix(f.Name, ".waitsFor") }) {
		t.Error("a goroutine that waits is not in the profile")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ops.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/debug/pprof/wall?seconds=65535", nil).WithContext(gone))
}

func waitsFor(waiting, end chan struct{}) {
	close(waiting)
	<-end
}
