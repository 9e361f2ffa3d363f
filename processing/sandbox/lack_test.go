//go:build linux

package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/processing/sandbox"
)

// started is what a worker says of its start.
type started struct {
	Prepare, Ask, Run string // errors, or ""
	Tool              string // what it wrote
	Log               string
	Protections       map[string]float64 // the metric
}

// startWorker is the life of a worker from its start to its first file and the first tool.
func startWorker(confinement string) {
	var log, tool bytes.Buffer
	registry := prometheus.NewRegistry()
	box := sandbox.New(sandbox.Config{
		Limits: roomy, Confinement: confinement, Metrics: sandbox.NewMetrics(registry), Log: slog.New(slog.NewJSONHandler(&log, nil)),
	})
	said := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	input, err := os.Open("/dev/null")
	if err != nil {
		panic(err)
	}
	s := started{Prepare: said(box.Prepare(context.Background())), Protections: map[string]float64{}}
	for _, owner := range []string{"A", "B"} { // the child that was prepared, and another
		s.Ask += said(box.Ask(context.Background(), owner, order{Do: "echo"}, input, func(r io.Reader, _ bool) error { return nil }))
	}
	s.Run = said(box.Run(context.Background(), self("limits"), input, roomy, &tool))
	_ = box.Close()
	s.Tool, s.Log = tool.String(), log.String()
	families, _ := registry.Gather()
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "tramo_sandbox_protection" {
				s.Protections[metric.GetLabel()[0].GetValue()] = metric.GetGauge().GetValue()
			}
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
}

// startOn starts a worker on a kernel that answers a call with an error, or on this one, and returns what the worker says.
func startOn(t *testing.T, call string, answer unix.Errno, confinement string) (s started) {
	t.Helper()
	var out, words bytes.Buffer
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"sandbox.test", "start", confinement}, Stdout: &out, Stderr: &words}
	must(t, onThread(func() error {
		if call != "" {
			refused := seccomp.SyscallGroup{Names: []string{call}, Action: seccomp.ActionErrno | seccomp.Action(answer)}
			policy := seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{refused}}
			if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Policy: policy}); err != nil {
				return err
			}
		}
		return cmd.Start()
	}))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, words.String())
	}
	must(t, json.Unmarshal(out.Bytes(), &s))
	return s
}

// Start the worker on a kernel that lacks Landlock or seccomp, is booted without, or hides it: nothing is read, by no process, and
// the error says what is missing and which setting does without it. With that setting all is read, with one warning.
func TestWhatTheKernelLacksIsRequired(t *testing.T) {
	t.Parallel()
	needKernel(t)
	for _, c := range []struct {
		name, call string
		answer     unix.Errno
		lack       string
	}{
		{"older than Landlock", "landlock_create_ruleset", unix.ENOSYS, "Landlock (function not implemented)"},
		{"booted without Landlock", "landlock_create_ruleset", unix.EOPNOTSUPP, "Landlock (operation not supported)"},
		{"in a container that hides Landlock", "landlock_create_ruleset", unix.EPERM, "Landlock (operation not permitted)"},
		{"without seccomp", "seccomp", unix.ENOSYS, "seccomp (filters are not supported)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startOn(t, c.call, c.answer, sandbox.Require)
			for what, said := range map[string]string{"start": s.Prepare, "file": s.Ask, "tool": s.Run} {
				if !strings.Contains(said, c.lack) || !strings.Contains(said, "TRAMO_CONFINEMENT=prefer") {
					t.Errorf("%s: %q", what, said)
				}
			}
			if s.Tool != "" {
				t.Errorf("the tool ran: %s", s.Tool)
			}
			s = startOn(t, c.call, c.answer, sandbox.Prefer)
			if s.Prepare+s.Ask+s.Run != "" || s.Tool == "" {
				t.Errorf("with prefer: %+v", s)
			}
			if n := strings.Count(s.Log, `"level":"WARN"`); n != 1 || !strings.Contains(s.Log, c.lack) || !strings.Contains(s.Log, "TRAMO_CONFINEMENT") {
				t.Errorf("%d warnings: %s", n, s.Log)
			}
			lacking := strings.ToLower(strings.Fields(c.lack)[0])
			for protection, force := range s.Protections {
				if protection != "cgroup" && (force == 0) != (protection == lacking) {
					t.Errorf("the metric says %v", s.Protections)
				}
			}
		})
	}
}

// A kernel that has both is enough, without close_range (before Linux 5.9), and where no cgroup can be made.
func TestWhatTheKernelHasIsEnough(t *testing.T) {
	t.Parallel()
	needKernel(t)
	for _, call := range []string{"", "close_range", "mkdirat"} {
		for _, confinement := range []string{sandbox.Require, sandbox.Prefer} {
			t.Run(fmt.Sprintf("without %s, %s", call, confinement), func(t *testing.T) {
				t.Parallel()
				s := startOn(t, call, unix.ENOSYS, confinement)
				if s.Prepare+s.Ask+s.Run != "" || s.Tool == "" || strings.Contains(s.Log, "WARN") || s.Protections["landlock"] == 0 {
					t.Errorf("%+v", s)
				}
				if call == "mkdirat" && s.Protections["cgroup"] != 0 {
					t.Error("there is a cgroup")
				}
			})
		}
	}
}

func TestConfinementIsChecked(t *testing.T) {
	t.Parallel()
	c := sandbox.DefaultConfig()
	if err := c.Validate(); err != nil || c.Confinement != sandbox.Require {
		t.Errorf("%q by default, %v", c.Confinement, err)
	}
	for _, wrong := range []string{"", "none", "Prefer"} {
		c.Confinement = wrong
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "TRAMO_CONFINEMENT") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}
