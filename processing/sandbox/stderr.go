package sandbox

import (
	"bytes"
	"strings"
	"sync"
)

// words keeps the first bytes that a process writes to its standard error for each file.
type words struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

const wordsLimit = 4 << 10

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.Write(p[:min(len(p), wordsLimit-w.kept.Len())])
	return len(p), nil
}

func (w *words) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.Reset()
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(w.kept.String()), "?")
}
