// Package clamd has ClamAV scan bytes. Only its exact replies count as a verdict; any other reply, or none, means that nothing was
// scanned.
package clamd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/conc/panics"
)

// How often each clamd is asked for its version: more often while it does not answer, so that it is used again soon.
const (
	askEvery     = time.Minute
	askAgainSoon = 5 * time.Second
)

// A Scanner has bytes scanned by the least busy of several clamds that answer, with the command INSTREAM (clamd(8),
// COMMANDS). It may be used by several goroutines at once.
type Scanner struct{ daemons []*daemon }

// Config says where clamd is.
type Config struct {
	Addresses string `name:"clamd" placeholder:"ADDRESS" help:"Address of clamd: unix:/path/to/socket or tcp://host:port. Of several, separated by commas, the least busy one that answers is used."`
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	if _, err := New(c.Addresses, Timeouts{}); err != nil {
		return fmt.Errorf("TRAMO_CLAMD: %w", err)
	}
	return nil
}

// New returns a Scanner for addresses such as "unix:/path/to/socket" or "tcp://host:port", separated by commas.
func New(addresses string, timeouts Timeouts) (*Scanner, error) {
	timeouts = Timeouts{
		Dial:  cmp.Or(timeouts.Dial, 10*time.Second),
		Idle:  cmp.Or(timeouts.Idle, 30*time.Second),
		Reply: cmp.Or(timeouts.Reply, 5*time.Minute),
	}
	s := new(Scanner)
	var mistakes []error
	for address := range strings.SplitSeq(addresses, ",") {
		d, err := newDaemon(strings.TrimSpace(address), timeouts)
		s.daemons, mistakes = append(s.daemons, d), append(mistakes, err)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return s, nil
}

// Scan sends all of r to a clamd. An error means that there is no verdict: a [Trouble] says nothing about the file; the file may have
// caused any other. The clamd is chosen before the first byte is read from r.
func (s *Scanner) Scan(ctx context.Context, r io.Reader) (Verdict, error) {
	d, conn, err := s.reach(ctx)
	if err != nil {
		return Verdict{}, err
	}
	verdict, err := d.scan(ctx, conn, r)
	if err != nil {
		return Verdict{}, err
	}
	verdict.Version = d.known(ctx)
	return verdict, nil
}

// reach connects to the first of the clamds, the least busy first, that accepts a connection.
func (s *Scanner) reach(ctx context.Context) (*daemon, net.Conn, error) {
	var all []error
	for _, d := range s.order() {
		conn, err := d.dial(ctx)
		if err == nil {
			return d, conn, nil
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("scan: %w", context.Cause(ctx))
		}
		d.state.Store(&state{asked: time.Now(), err: err})
		all = append(all, fmt.Errorf("%s: %w", d.name, err))
	}
	return nil, nil, &Trouble{errors.Join(all...)}
}

// order sorts the clamds: those that answered last time first, and of these the least busy first.
func (s *Scanner) order() []*daemon {
	order := slices.Clone(s.daemons)
	slices.SortStableFunc(order, func(a, b *daemon) int {
		return cmp.Or(cmp.Compare(a.failing(), b.failing()), cmp.Compare(a.running.Load(), b.running.Load()))
	})
	return order
}

func (d *daemon) failing() int {
	if at := d.state.Load(); at != nil && at.err != nil {
		return 1
	}
	return 0
}

// Run asks each clamd for its version from time to time, so that scans do not wait for one that is down. It ends with ctx.
func (s *Scanner) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range s.daemons {
		all.Go(func() {
			for ctx.Err() == nil {
				wait := askEvery
				if p := panics.Try(func() { d.refresh(ctx) }); p != nil {
					d.state.Store(&state{asked: time.Now(), err: p.AsError()})
				}
				if d.failing() == 1 {
					wait = askAgainSoon
				}
				select {
				case <-ctx.Done():
				case <-time.After(wait):
				}
			}
		})
	}
	all.Wait()
}

// Ping returns nil if one clamd at least answers. Its answer queues behind running scans: 5 s have been seen.
func (s *Scanner) Ping(ctx context.Context) error {
	answers := make(chan error, len(s.daemons))
	for _, d := range s.daemons {
		go func() {
			var err error
			if p := panics.Try(func() { err = d.ping(ctx) }); p != nil {
				err = p.AsError()
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", d.name, err)
			}
			answers <- err
		}()
	}
	var all []error
	for range s.daemons {
		err := <-answers
		if err == nil {
			return nil
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

func (d *daemon) ping(ctx context.Context) error {
	text, err := d.ask(ctx, "PING")
	if err == nil && text != "PONG" {
		err = fmt.Errorf("clamd answers a ping with %q", text)
	}
	return err
}
