// Bench measures Tramo against stock tusd and against a bare client of S3, over the same S3 server, in the same run and
// taking turns, so that ratios hold on a machine that does other things too. It prints a table in Markdown, with
// progress and every single value on standard error.
//
//	go run ./test/bench [-only name,name] [-repeat n]
//
// What it counts, such as requests, does not depend on the machine; the package's tests hold Tramo to that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A bench is a stand and what was measured on it.
type bench struct {
	*stand
	report
	repeat int
}

var cases = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"requests", requests},
	{"latency", latency},
	{"others", others},
	{"bursts", bursts},
	{"large", large},
	{"stalled", stalled},
	{"beside", beside},
	{"head", heads},
	{"batches", batches},
	{"quota", quota},
	{"fairness", fairness},
	{"listeners", listeners},
	{"processing", processing},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", strings.Join(names, ","), "measure only these")
	repeat := flags.Int("repeat", 3, "how often; medians are reported")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-only: %q is none of %s", name, strings.Join(names, ", "))
		}
	}
	if *repeat < 1 {
		return errors.New("-repeat: at least 1")
	}
	s, err := newStand(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	began := setting(ctx)
	b := &bench{stand: s, report: report{progress: progress, begun: time.Now()}, repeat: *repeat}
	for _, c := range cases {
		if err == nil && slices.Contains(chosen, c.name) {
			fmt.Fprintln(progress, c.name)
			if err = c.run(ctx, b); err != nil {
				err = fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	// Also what was measured before something went wrong.
	fmt.Fprintf(out, "%s at the start and %s at the end; %d repetitions.\n\n", began, load(), *repeat)
	b.print(out)
	return err
}

// rounds lets the peers take turns, as often as b repeats, each time with a fresh server and an empty bucket.
func (b *bench) rounds(ctx context.Context, peers []peer, endpoint string, f func(*server) error) error {
	return b.turns(ctx, b.repeat, peers, endpoint, f)
}

func (b *bench) turns(ctx context.Context, n int, peers []peer, endpoint string, f func(*server) error) error {
	for range n {
		for _, p := range peers {
			sv, err := b.serve(ctx, p, endpoint)
			if err != nil {
				return err
			}
			err = f(sv)
			clients.CloseIdleConnections()
			if err := errors.Join(err, sv.stop(), b.wipe()); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return nil
}
