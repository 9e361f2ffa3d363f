package worker

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// What a killed worker has left goes when the next one starts; what a living one has stays.
func TestDirectoriesOfDeadWorkersAreSwept(t *testing.T) {
	t.Parallel()
	parent, log := t.TempDir(), slog.New(slog.DiscardHandler)
	dead := filepath.Join(parent, ownDirs+"dead")
	stack.Must(t, os.MkdirAll(filepath.Join(dead, "examine-1"), 0o700))
	stack.Must(t, os.WriteFile(filepath.Join(dead, "examine-1", "vips-1.v"), []byte("pixels"), 0o600))
	other := filepath.Join(parent, "somebody-elses")
	stack.Must(t, os.Mkdir(other, 0o700))
	living, _, err := ownDir(parent, log)
	stack.Must(t, err)
	stack.Must(t, os.WriteFile(filepath.Join(living, "tramo-1"), []byte("x"), 0o600))
	third, remove, err := ownDir(parent, log)
	stack.Must(t, err)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("what the dead one left: %v", err)
	}
	for _, dir := range []string{filepath.Join(living, "tramo-1"), third, other} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	remove()
	if _, err := os.Stat(third); !os.IsNotExist(err) {
		t.Errorf("what was removed: %v", err)
	}
}

// Many that begin at once each have a directory of their own.
func TestDirectoriesAreNotSweptByWhoBegins(t *testing.T) {
	t.Parallel()
	parent, log := t.TempDir(), slog.New(slog.DiscardHandler)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			dir, remove, err := ownDir(parent, log)
			if err == nil {
				t.Cleanup(remove) // which holds the lock until then
				_, err = os.Stat(dir)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if left, _ := filepath.Glob(filepath.Join(parent, ownDirs+"*")); len(left) != 20 {
		t.Errorf("%d directories, want 20", len(left))
	}
}
