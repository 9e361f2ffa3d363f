package ratelimit

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/test/stack"
)

// one is a tenant that may have one upload.
var one = terms{most: 1, share: 1}

// Requests get a place in the order of their arrival; another tenant does not wait.
func TestConcurrencyIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s places
		ours, other := uuid.New(), uuid.New()
		release, err := s.acquire(t.Context(), ours, &place{}, one)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				release, err := s.acquire(t.Context(), ours, &place{}, one)
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				release()
			}()
			synctest.Wait() // until it waits
		}
		freeOther, err := s.acquire(t.Context(), other, &place{}, one)
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
	first, err := s.acquire(t.Context(), id, &place{}, one)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.acquire(gone, id, &place{}, one); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	second, err := s.acquire(t.Context(), id, &place{}, terms{most: 2, share: 2})
	if err != nil {
		t.Fatal(err)
	}
	first()
	second()
	if len(s.tenants) != 0 {
		t.Errorf("%d tenants are kept without a request", len(s.tenants))
	}
}

// One user cannot have all places of a company: whoever comes later passes the requests of that user that wait.
func TestNoUserHasAllPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s places
		id, now := uuid.New(), (&Concurrency{}).terms(4)
		var mine []func()
		for range 2 {
			release, err := s.acquire(t.Context(), id, &place{user: "ana"}, now)
			if err != nil {
				t.Fatal(err)
			}
			mine = append(mine, release)
		}
		third := make(chan error, 1)
		go func() {
			release, err := s.acquire(t.Context(), id, &place{user: "ana"}, now)
			if err == nil {
				defer release()
			}
			third <- err
		}()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.acquire(short, id, &place{user: "ana"}, now); !errors.Is(err, errOwnShare) {
			t.Errorf("a fourth request of one user: %v", err)
		}
		for range 2 {
			release, err := s.acquire(t.Context(), id, &place{user: "luz"}, now)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
		}
		mine[0]()
		if err := <-third; err != nil {
			t.Error(err)
		}
		mine[1]()
	})
}

// Shares are half of a tenant's places unless somebody says otherwise, and never none.
func TestTerms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ most, user, want int }{{500, 0, 250}, {3, 0, 2}, {1, 0, 1}, {500, 20, 20}, {5, 20, 5}} {
		if got := (&Concurrency{UserUploads: c.user}).terms(c.most).share; got != c.want {
			t.Errorf("of %d places a user has %d with a maximum of %d, want %d", c.most, got, c.user, c.want)
		}
	}
}

// A body that hardly arrives keeps its place while nobody waits. Once somebody does, it gives way, after minutes; one that
// arrives at the least rate does not, nor does one that the server does not read.
func TestSlowBodiesGiveWay(t *testing.T) {
	t.Parallel()
	const minutes = 2 * time.Minute
	for name, c := range map[string]struct {
		bytes  int // of each write
		every  time.Duration
		pause  time.Duration // of the server's, between two reads
		begins int           // bytes at once, before
		yields bool
	}{
		"a byte a minute":                 {bytes: 1, every: time.Minute, yields: true},
		"silent":                          {bytes: 1, every: time.Hour, yields: true},
		"almost enough":                   {bytes: 1000, every: time.Second, yields: true},
		"a megabyte, and then hardly any": {bytes: 1, every: time.Second, begins: 1 << 20, yields: true},
		"enough":                          {bytes: 1100, every: time.Second},
		"enough in a minute":              {bytes: 70_000, every: time.Minute},
		"the server is slow":              {bytes: 100, every: time.Millisecond, pause: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var s places
				id, now := uuid.New(), terms{most: 1, share: 1, least: rate{1 << 10, minutes}}
				body, client := io.Pipe()
				first := &place{user: "ana", cut: func() { body.CloseWithError(errors.New("the deadline has passed")) }}
				first.meter.over = minutes
				release, err := s.acquire(t.Context(), id, first, now)
				if err != nil {
					t.Fatal(err)
				}
				ended, over := make(chan error, 1), make(chan struct{})
				go func() {
					defer release()
					buffer := make([]byte, 1<<20)
					for {
						if _, err := (meteredBody{body, &first.meter}).Read(buffer); err != nil {
							ended <- err
							return
						}
						<-time.After(c.pause)
					}
				}()
				go func() {
					_, err := io.WriteString(client, strings.Repeat("x", c.begins))
					for err == nil {
						select {
						case <-time.After(c.every):
							_, err = io.WriteString(client, strings.Repeat("x", c.bytes))
						case <-over:
							return
						}
					}
				}()
				<-time.After(20 * time.Minute) // of the bubble's
				select {
				case err := <-ended:
					t.Fatalf("it ended while nobody waited: %v", err)
				default:
				}
				waiting, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				next, err := s.acquire(waiting, id, &place{user: "luz"}, now)
				if (err == nil) != c.yields {
					t.Errorf("the next one has the place: %v", err)
				}
				if err == nil {
					next()
					if err := <-ended; !errors.Is(err, problem.ErrGaveWay) {
						t.Errorf("it ended with %v", err)
					}
				}
				close(over)
				_ = client.CloseWithError(io.ErrUnexpectedEOF)
				body.Close()
				if err != nil {
					_ = stack.Receive(t, "end of the slow body", ended)
				}
			})
		})
	}
}

// Whoever has its share waits for its own slow bodies alone.
func TestShareMakesRoomOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s places
		id, now := uuid.New(), terms{most: 2, share: 1, least: rate{1 << 10, time.Minute}}
		cut := make(map[string]bool)
		for _, user := range []string{"luz", "ana"} {
			p := &place{user: user}
			var release func()
			p.cut = func() { cut[user] = true; go release() }
			p.meter.over = time.Minute
			p.meter.begin()
			var err error
			if release, err = s.acquire(t.Context(), id, p, now); err != nil {
				t.Fatal(err)
			}
			<-time.After(10 * time.Minute) // luz's is the slower one
		}
		release, err := s.acquire(t.Context(), id, &place{user: "ana"}, now)
		if err != nil || cut["luz"] || !cut["ana"] {
			t.Errorf("%v; cut off are %v", err, cut)
		}
		release()
	})
}
