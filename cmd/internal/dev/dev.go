// Package dev is the program tramo-dev: it starts, supervises and stops all of Tramo on one machine.
package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tramo/tramo/cmd/internal/cli"
)

// Program is tramo-dev, for the command line.
func Program() cli.Program {
	return cli.Program{
		Name:    "tramo-dev",
		Grammar: defaultConfig(),
		Description: "Runs all of Tramo on this machine: Postgres, S3, clamd, tramo serve and tramo-worker. " +
			"TRAMO_DATABASE_URL, TRAMO_S3_ENDPOINT with TRAMO_S3_BUCKET, and TRAMO_CLAMD each replace a private service by yours. " +
			"Other variables of tramo serve and tramo-worker reach them too.",
	}
}

// Run implements the command. It returns nil after Ctrl-C.
func (c *config) Run() error {
	lock, err := lockDir(c.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopOnSignal(cancel)

	s := newStack(*c)
	err = s.run(ctx)
	if ctx.Err() != nil {
		err = nil // stopped by the user
	}
	return errors.Join(err, s.stop())
}

// stopOnSignal calls stop on the first signal. The second ends the process at once, and with it, by their
// parent-death signals, all its children.
func stopOnSignal(stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		fmt.Fprintln(os.Stderr, "\nstopping; once more to stop at once")
		stop()
		<-signals
		os.Exit(130)
	}()
}
