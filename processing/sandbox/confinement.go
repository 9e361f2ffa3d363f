package sandbox

import (
	"fmt"
	"log/slog"
	"strings"
)

// The protections that a kernel may lack, by the names that they have in Config.TooWide.
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

// Missing says what is not in force, or nothing.
func (c Confinement) Missing() string {
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

// String says it in one line.
func (c Confinement) String() string {
	return fmt.Sprintf("landlock=%d seccomp=%t cgroup=%s", c.Landlock, c.Seccomp, c.Cgroup)
}

// report logs once what is in force.
func (b *Box) report(c Confinement) {
	b.tell.Do(func() {
		b.mu.Lock()
		b.forced = c
		b.mu.Unlock()
		b.config.Metrics.force(c)
		b.config.Log.Info("strangers' files are read in confined processes", slog.Int("landlock", c.Landlock),
			slog.Bool("seccomp", c.Seccomp), slog.String("cgroup", c.Cgroup), slog.String("missing", c.Missing()))
	})
}

// Confinement is what the children of this Box are confined by, as the first one said; nothing before it started.
func (b *Box) Confinement() Confinement {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.forced
}
