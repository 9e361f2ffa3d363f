// Bench measures Tramo against stock tusd, the API that it replaces, and a bare client of S3, over the same S3 server, in
// the same run and taking turns, so that ratios hold on a machine that does other things too. It prints a table in
// Markdown, with progress and every single value on standard error, beside the figures of the run before. Its own are in a
// file of the output folder, for the next run.
//
//	go run ./test/bench [-only name,name] [-repeat n] [-compare file] [-profile] [-out folder]
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
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/tramo/tramo/test/stack"
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
	{"transactions", transactions},
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
	{"legacy", rival},
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

// options are what the command line says.
type options struct {
	only    []string
	repeat  int
	out     string // the output folder, absolute
	compare string // a file of figures; "" for the run before
	profile bool
}

func parse(args []string) (o options, err error) {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	root, err := stack.RepoRoot()
	if err != nil {
		return o, err
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", strings.Join(names, ","), "measure only these")
	flags.IntVar(&o.repeat, "repeat", 3, "how often; medians are reported")
	flags.StringVar(&o.out, "out", filepath.Join(root, "test", "bench", "out"), "folder in which each run makes one of its own")
	flags.StringVar(&o.compare, "compare", "", "file of figures to compare with; by default that of the run before")
	flags.BoolVar(&o.profile, "profile", false, "write CPU and wall profiles of server and worker beside the figures, which this makes worse")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.only = strings.Split(*only, ",")
	for _, name := range o.only {
		if !slices.Contains(names, name) {
			return o, fmt.Errorf("-only: %q is none of %s", name, strings.Join(names, ", "))
		}
	}
	if o.repeat < 1 {
		return o, errors.New("-repeat: at least 1")
	}
	for _, path := range []*string{&o.out, &o.compare} { // the S3 server moves the working directory
		if *path != "" && err == nil {
			*path, err = filepath.Abs(*path)
		}
	}
	return o, err
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	var earlier *record
	if o.compare != "" {
		if earlier, err = readRecord(o.compare); err != nil {
			return fmt.Errorf("-compare: %w", err)
		}
	}
	about := record{Commit: commit(ctx), Date: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Repeat: o.repeat, Profiled: o.profile}
	about.Load[0] = load()
	dir := filepath.Join(o.out, about.Date.Format("20060102T150405Z")+"-"+about.Commit)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s, err := newStand(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if o.profile {
		s.profiles = &profiles{dir: dir, merged: map[string]*profile.Profile{}}
	}
	b := &bench{stand: s, report: report{progress: progress, begun: time.Now()}, repeat: o.repeat}
	for _, c := range cases {
		if err == nil && slices.Contains(o.only, c.name) {
			fmt.Fprintln(progress, c.name)
			if err = errors.Join(c.run(ctx, b), s.profiles.save(c.name)); err != nil {
				err = fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	// Also what was measured before something went wrong.
	about.Load[1] = load()
	about.Figures = newRecord(b.rows).Figures
	err = errors.Join(err, about.write(dir))
	if earlier == nil {
		var failed error
		earlier, failed = before(o.out, &about)
		err = errors.Join(err, failed)
	}
	fmt.Fprintf(out, "%s.\n%s\nFigures: %s\n\n", &about, about.comparison(earlier), filepath.Join(dir, figuresFile))
	b.print(out, earlier)
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
