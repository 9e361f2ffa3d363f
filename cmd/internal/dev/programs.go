package dev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tramo/tramo/test/stack"
)

const (
	demoTenant   = "demo"
	demoTokenTTL = "720h"
	readyTimeout = 60 * time.Second
	// The server saves running uploads before it ends.
	programGrace = 30 * time.Second
)

func (s *devStack) migrate(ctx context.Context) error {
	return s.out.step("database schema", func() error {
		if _, err := s.tramoRun(ctx, s.adminEnv, "migrate"); err != nil {
			return err
		}
		id, err := s.tramoRun(ctx, s.workerEnv, "tenant", "add", demoTenant, "--if-missing")
		if os.Getenv("TRAMO_ADMIN_TENANTS") == "" {
			s.extraEnv = append(s.extraEnv, "TRAMO_ADMIN_TENANTS="+strings.TrimSpace(id)) // what admins do is tried out here too
		}
		return err
	})
}

// demoToken returns "" if tokens come from an identity provider.
func (s *devStack) demoToken(ctx context.Context) (string, error) {
	if !s.cfg.signsTokens() {
		return "", nil
	}
	token, err := s.tramoRun(ctx, s.workerEnv,
		"token", "--tenant", demoTenant, "--user", "demo", "--role", "constructora", "--ttl", demoTokenTTL)
	return strings.TrimSpace(token), err
}

// tramoRun runs a command of tramo and returns its standard output.
func (s *devStack) tramoRun(ctx context.Context, env []string, args ...string) (string, error) {
	return stack.Run(ctx, stack.ProcessConfig{
		Path: filepath.Join(s.tramo, "tramo"), Name: "tramo " + args[0], Args: args, Env: s.environ(env),
	})
}

// startPrograms starts the server and the worker and returns once both are ready.
func (s *devStack) startPrograms(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	programs := []*program{
		{ops: localURL(s.cfg.WorkerOpsListen), cfg: stack.ProcessConfig{
			Path: filepath.Join(s.tramo, "tramo-worker"), Name: "tramo-worker",
			Env: s.environ(s.workerEnv), Log: s.out.prefixed("worker"), Grace: programGrace,
		}},
		{ops: localURL(s.cfg.OpsListen), cfg: stack.ProcessConfig{
			Path: filepath.Join(s.tramo, "tramo"), Args: []string{"serve"}, Name: "tramo serve",
			Env: s.environ(s.serveEnv), Log: s.out.prefixed("serve "), Grace: programGrace,
		}},
	}
	for _, p := range programs {
		p.quiet = 2 * time.Second
		if err := p.Restart(ctx); err != nil {
			return err
		}
		s.add(p.cfg.Name, p)
	}
	for _, p := range programs {
		if err := s.out.step(p.cfg.Name, func() error { return p.awaitReady(ctx, s.out) }); err != nil {
			return err
		}
	}
	return nil
}

// environ returns the environment of a program: ours, with env. It leaves out TRAMO_DEV_ variables and, with a private S3
// server, the AWS variables of the shell, which name another server.
func (s *devStack) environ(env []string) []string {
	set := slices.Concat(s.extraEnv, env)
	inherited := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "TRAMO_DEV_") ||
			s.ownS3 && strings.HasPrefix(name, "AWS_") ||
			slices.ContainsFunc(set, func(o string) bool {
				return strings.HasPrefix(o, name+"=") || strings.HasPrefix(o, strings.TrimSuffix(name, "_FILE")+"=")
			})
	})
	return append(inherited, set...)
}

// program is a program of ours that can be restarted.
type program struct {
	*stack.Process
	cfg stack.ProcessConfig
	ops string // URL of its operations listener
	// quiet is how long awaitReady says nothing.
	quiet time.Duration
}

// Restart implements [process]. It starts the program, too.
func (p *program) Restart(context.Context) (err error) {
	p.Process, err = stack.Start(p.cfg)
	return err
}

// awaitReady waits until the program is ready, and prints each thing that it waits for, once.
func (p *program) awaitReady(ctx context.Context, out *console) error {
	began, said := time.Now(), map[string]bool{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := stack.Probe(ctx, p.ops+"/readyz")
		if err == nil {
			return nil
		}
		if why := err.Error(); !said[why] && time.Since(began) > p.quiet {
			said[why] = true
			out.printf("  waiting for %s: %s", p.cfg.Name, why)
		}
		select {
		case <-p.Exited():
			return errors.New("it ended; see its output above")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}
