package ratelimit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
)

// Requests get a place in the order of their arrival; another tenant does not wait.
func TestConcurrencyIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s places
		ours, other := uuid.New(), uuid.New()
		release, err := s.acquire(t.Context(), ours, 1)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				release, err := s.acquire(t.Context(), ours, 1)
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				release()
			}()
			synctest.Wait() // until it waits
		}
		freeOther, err := s.acquire(t.Context(), other, 1)
		if err != nil {
			t.Fatal(err)
		}
		freeOther()
		release()
		for want := range 3 {
			if got := <-order; got != want {
				t.Errorf("the one that came as number %d was number %d", got, want)
			}
		}
		synctest.Wait()
		if len(s.tenants) != 0 {
			t.Errorf("%d tenants are kept without a request", len(s.tenants))
		}
	})
}

// A request that gives up leaves the queue, and a larger maximum applies at once.
func TestConcurrencyWaitIsGivenUp(t *testing.T) {
	t.Parallel()
	var s places
	id := uuid.New()
	first, err := s.acquire(t.Context(), id, 1)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.acquire(gone, id, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	second, err := s.acquire(t.Context(), id, 2)
	if err != nil {
		t.Fatal(err)
	}
	first()
	second()
	if len(s.tenants) != 0 {
		t.Errorf("%d tenants are kept without a request", len(s.tenants))
	}
}
