package sandbox

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// What TRAMO_CONFINEMENT says about a kernel that lacks Landlock or seccomp.
const (
	Require = "require" // no file is read
	Prefer  = "prefer"  // files are read with what there is
)

// The protections that a kernel may lack, by the names that they have in Config.Without.
const (
	protectLandlock = "landlock"
	protectSeccomp  = "seccomp"
	protectCgroup   = "cgroup"
)

// Confinement is what confines a child on this kernel, besides what is always in force: its limits, and that it holds nothing.
type Confinement struct {
	Landlock int      `json:"landlock"` // the version of the kernel's, or 0
	Seccomp  bool     `json:"seccomp"`
	Lacks    []string `json:"lacks,omitempty"` // which of the two the kernel lacks, with its own words
	Cgroup   string   `json:"-"`               // v1, v2 or "", as the parent knows
}

// refusal is the error for a kernel that lacks something that the operator requires, or nil. A cgroup is not required: it
// only makes a limit exact that is there without it, and neither ordinary users nor most containers can make one.
func (c Confinement) refusal(confinement string) error {
	if confinement == Prefer || len(c.Lacks) == 0 {
		return nil
	}
	return fmt.Errorf("this kernel cannot confine the processes that read uploaded files, it lacks %s: use Linux 5.13 or later with both "+
		"Landlock and seccomp, or set TRAMO_CONFINEMENT=prefer to work without", strings.Join(c.Lacks, " and "))
}

// missing says what is not in force, or nothing.
func (c Confinement) missing() string {
	missing := slices.Clone(c.Lacks)
	if c.Cgroup == "" {
		missing = append(missing, "a writable cgroup")
	}
	return strings.Join(missing, ", ")
}

// report logs once what is in force.
func (b *Box) report(c Confinement) {
	b.tell.Do(func() {
		b.config.Metrics.force(c)
		attributes := []slog.Attr{
			slog.Int("landlock", c.Landlock), slog.Bool("seccomp", c.Seccomp), slog.String("cgroup", c.Cgroup), slog.String("missing", c.missing()),
		}
		if len(c.Lacks) > 0 {
			b.config.Log.LogAttrs(context.Background(), slog.LevelWarn,
				"strangers' files are read in processes that this kernel cannot confine, because TRAMO_CONFINEMENT is prefer", attributes...)
			return
		}
		b.config.Log.LogAttrs(context.Background(), slog.LevelInfo, "strangers' files are read in confined processes", attributes...)
	})
}
