package dev

import (
	"context"
	"time"
)

const (
	firstPause   = 500 * time.Millisecond
	maxPause     = 30 * time.Second
	healthyAfter = time.Minute // a service that ran this long starts with the first pause again
)

// A process is what a [service] runs.
type process interface {
	Exited() <-chan struct{}
	Restart(context.Context) error
	Stop() error
}

// service runs until it is stopped, and is restarted when it ends before.
type service struct {
	name string
	process
}

// supervise restarts the service whenever it ends, with growing pauses, until ctx ends.
func (s *service) supervise(ctx context.Context, out *console) {
	pause := firstPause
	for {
		began := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-s.Exited():
		}
		if time.Since(began) > healthyAfter {
			pause = firstPause
		}
		for {
			out.printf("%s ended unexpectedly; restarting it in %s", s.name, pause)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxPause)
			err := s.Restart(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			out.printf("%s: %v", s.name, err)
		}
	}
}
