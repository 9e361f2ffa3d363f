package stack

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Random returns a source of randomness. A failing test prints its seed; TRAMO_TEST_SEED replays it.
func Random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("TRAMO_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		Must(t, err)
	}
	t.Logf("TRAMO_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Log returns a log that a failing test shows, from a level on.
func Log(t testing.TB, level slog.Level) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}
