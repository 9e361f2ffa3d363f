package processing

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// Downloads share the space: who does not fit waits for its turn, and the first in the line is the first to get in.
func TestSpaceIsTakenInTurn(t *testing.T) {
	t.Parallel()
	s := NewSpace(10, prometheus.NewRegistry())
	first, err := s.take(t.Context(), 6)
	stack.Must(t, err)
	got := make(chan int64, 2)
	wait := func(bytes int64) context.CancelFunc {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if _, err := s.take(ctx, bytes); err == nil {
				got <- bytes
			}
		}()
		return cancel
	}
	defer wait(8)()
	stack.Until(t, "wait for 8", func() bool { // then nothing is let in past it
		if s.room.TryAcquire(1) {
			s.room.Release(1)
			return false
		}
		return true
	})
	select {
	case n := <-got:
		t.Fatalf("%d bytes were let in beside 6 of 10", n)
	default:
	}
	first()
	stack.Want(t, stack.Receive(t, "8 bytes", got), 8, "bytes that were let in")
}

// No room is no fault of the upload's; too little space for it alone is an error that says so.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	s := NewSpace(10, prometheus.NewRegistry())
	_, err := s.take(t.Context(), 11)
	if err == nil || errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), "11 bytes does not fit into the 10 of TRAMO_TEMP_SPACE") {
		t.Errorf("got %v", err)
	}
	_, err = s.take(t.Context(), 10)
	stack.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.take(ctx, 1); !errors.Is(err, queue.ErrUnavailable) || !errors.Is(err, errNoRoom) {
		t.Errorf("got %v", err)
	}
}

// A crowd of workers has never more on disk than the space allows, and all of it gets through.
func TestSpaceBoundsTheDisk(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	photo := smallPhoto()
	p.workers = 6
	p.pipeline.Space = NewSpace(int64(len(photo))*2+1, p.registry)
	g := newGate(t, 0)
	p.reach(t, g.url)
	for range 6 {
		p.receive(t, photo, photo, 1)
	}
	p.run(t)
	g.await(t)
	g.await(t) // two are in, and so wait the others
	p.await(t, `select count(*) = 6 from timeline where event = 'processing'`)
	stack.Want(t, gauge(t, p.registry, "tramo_processing_temp_bytes"), float64(2*len(photo)), "bytes taken by two photos")
	select {
	case <-g.held:
		t.Error("a third download was begun")
	default:
	}
	close(g.open)
	p.await(t, allJobs, "completed")
	stack.Want(t, gauge(t, p.registry, "tramo_processing_temp_bytes"), 0, "bytes taken")
}

// An upload that is larger than all the space is a dead letter that tells the operator which setting to raise.
func TestUploadLargerThanTheSpace(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.pipeline.Space = NewSpace(int64(len(note))-1, p.registry)
	id := p.receive(t, note, note, 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	p.want(t, id, storage.Failed, storage.ReasonDeadLettered, 0, 1)
	if errs := p.job(t, queue.MaxAttempts, queue.MaxAttempts); !strings.Contains(errs, "TRAMO_TEMP_SPACE") {
		t.Errorf("it failed of %s", errs)
	}
}

func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	stack.Must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
