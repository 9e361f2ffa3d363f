package telemetry

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// Version is the release that this code is, or becomes next (semver.org).
const Version = "0.1.0"

// revision is set by the Makefile, with -ldflags -X, where git knows it.
var revision string

// A Build says what a program was built from.
type Build struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"` // of the repository; "unknown" if the build did not know it
	GoVersion string `json:"go_version"`
}

// ThisBuild returns what this program was built from.
func ThisBuild() Build {
	b := Build{Version: Version, Revision: revision, GoVersion: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && b.Revision == "" {
		b.Revision = stamp(info.Settings)
	}
	if b.Revision == "" {
		b.Revision = "unknown"
	}
	return b
}

// stamp is the revision that go build found by itself.
func stamp(settings []debug.BuildSetting) (rev string) {
	dirty := ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if rev == "" {
		return ""
	}
	return rev + dirty
}

// String returns one line for people.
func (b Build) String() string {
	return fmt.Sprintf("%s (revision %s, %s)", b.Version, b.Revision, b.GoVersion)
}

// buildInfo is a metric whose labels are the build.
func buildInfo(b Build) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "tramo_build_info",
		Help:        "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go_version": b.GoVersion},
	}, func() float64 { return 1 })
}
