package telemetry

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// The version stands in this package alone. /livez and the metric show it with the revision and Go's version.
func TestVersionIsShown(t *testing.T) {
	t.Parallel()
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(Version) {
		t.Errorf("version %q is not semantic", Version)
	}
	b := ThisBuild()
	if b.Version != Version || b.Revision == "" || b.GoVersion != runtime.Version() {
		t.Errorf("%+v", b)
	}
	ops := Ops{Registry: NewRegistry(), Log: slog.New(slog.DiscardHandler)}
	get := func(path string) string {
		w := httptest.NewRecorder()
		ops.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Body.String()
	}
	var live struct {
		Status string
		Build
	}
	if err := json.Unmarshal([]byte(get("/livez")), &live); err != nil || live.Status != "ok" || live.Build != b {
		t.Errorf("/livez: %+v, %v", live, err)
	}
	want := fmt.Sprintf(`tramo_build_info{go_version=%q,revision=%q,version=%q} 1`, b.GoVersion, b.Revision, b.Version)
	if metrics := get("/metrics"); !strings.Contains(metrics, want) {
		t.Errorf("no %s in\n%s", want, metrics)
	}
}

func TestRevision(t *testing.T) {
	t.Parallel()
	vcs := func(rev, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: rev}, {Key: "vcs.modified", Value: modified}}
	}
	for want, settings := range map[string][]debug.BuildSetting{
		"":                   nil,
		"0123456789ab":       vcs("0123456789abcdef", "false"),
		"0123456789ab-dirty": vcs("0123456789abcdef", "true"),
		"7":                  vcs("7", ""),
	} {
		if got := stamp(settings); got != want {
			t.Errorf("%v: %q, want %q", settings, got, want)
		}
	}
	if text, err := os.ReadFile("../Makefile"); err != nil || !strings.Contains(string(text), "-X github.com/tramo/tramo/telemetry.revision=") {
		t.Errorf("the Makefile does not set the revision: %v", err)
	}
}
