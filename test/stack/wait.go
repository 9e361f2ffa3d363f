package stack

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for what should take moments. It is long because the machine may be busy; only a
// failing test waits for all of it.
const Patience = 3 * time.Minute

// Must fails the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Context returns the test's context for what should take moments: it ends after [Patience].
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Wait waits until all of a group have ended, and fails the test after [Patience] with what it waited for.
func Wait(t testing.TB, what string, all *sync.WaitGroup) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	Receive(t, what, ended)
}

// WantErr reports an error other than want (see [errors.Is]).
func WantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

// Want reports a value that differs from want (see [reflect.DeepEqual]). What the value is follows as a format and its
// arguments.
func Want[T any](t testing.TB, got, want T, what string, args ...any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, want %+v", fmt.Sprintf(what, args...), got, want)
	}
}

// Until waits until reached returns true, and fails the test after [Patience] with what it waited for.
func Until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !reached(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", Patience, what)
		}
	}
}

// Output runs a program and returns what it printed. It fails the test if the program fails, or has not ended after
// [Patience].
func Output(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(Context(t), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// Receive returns the next value of c, and fails the test after [Patience] with what it waited for. A closed channel
// yields the zero value.
func Receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	select {
	case v := <-c:
		return v
	case <-late.C:
		t.Fatalf("after %s still no %s", Patience, what)
		panic("unreachable")
	}
}

// Ended returns what wait returns, such as the Wait of an errgroup, and fails the test after [Patience] with what it waited
// for.
func Ended(t testing.TB, what string, wait func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	return Receive(t, "end of "+what, ended)
}
