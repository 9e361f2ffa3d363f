package sandbox

import (
	"log/slog"
	"strings"
)

// The protections that a kernel may lack, by the names that they have in Config.Without.
const (
	protectLandlock = "landlock"
	protectSeccomp  = "seccomp"
	protectCgroup   = "cgroup"
)

// Confinement is what confines a child on this kernel, besides its limits, which are always in force.
type Confinement struct {
	Landlock int    `json:"landlock"` // the version of the kernel's, or 0
	Seccomp  bool   `json:"seccomp"`
	Cgroup   string `json:"-"` // v1, v2 or "", as the parent knows
}

// missing says what is not in force, or nothing.
func (c Confinement) missing() string {
	var missing []string
	if c.Landlock == 0 {
		missing = append(missing, "Landlock")
	}
	if !c.Seccomp {
		missing = append(missing, "seccomp")
	}
	if c.Cgroup == "" {
		missing = append(missing, "a writable cgroup")
	}
	return strings.Join(missing, ", ")
}

// report logs once what is in force.
func (b *Box) report(c Confinement) {
	b.tell.Do(func() {
		b.config.Metrics.force(c)
		b.config.Log.Info("strangers' files are read in confined processes", slog.Int("landlock", c.Landlock),
			slog.Bool("seccomp", c.Seccomp), slog.String("cgroup", c.Cgroup), slog.String("missing", c.missing()))
	})
}
