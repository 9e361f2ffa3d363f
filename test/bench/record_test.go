package main

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// measured is a report of a photo that takes so many ms, and of tusd's, which takes 100.
func measured(ms, tusd float64) *report {
	r := &report{progress: io.Discard, begun: time.Now()}
	r.row("ms for a photo", figures{tramo: {ms + 1, ms, ms - 1}, stock: {tusd}}, "%.0f", "≤ 50", ms <= 50)
	r.row("the same, against the bare PUT", figures{tramo: {ms / 10}}, "%.2fx", "", true)
	r.row("requests", figures{tramo: {1}, stock: {0}}, "%.0f", "1", true)
	r.row("the same, against the bare PUT", figures{tramo: {math.Inf(1)}}, "%.1fx", "", true)
	return r
}

// A run's figures come back from its file, and the next run's table says how each has changed.
func TestCompare(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	keep := func(name string, days int, rec *record) {
		t.Helper()
		rec.Commit, rec.Date, rec.Machine, rec.Load = name, time.Date(2026, 11, days, 12, 0, 0, 0, time.UTC), machine{Cores: 2}, [2]string{"0.10", "2.00"}
		stack.Must(t, os.MkdirAll(filepath.Join(out, name), 0o755))
		stack.Must(t, rec.write(filepath.Join(out, name)))
	}
	keep("older", 1, newRecord(measured(10, 100).rows))
	keep("before", 2, newRecord(measured(40, 100).rows))
	profiled := newRecord(measured(90, 100).rows)
	profiled.Profiled = true
	keep("profiled", 3, profiled)
	other := report{progress: io.Discard}
	other.row("MB/s", figures{tramo: {5}}, "%.0f", "", true)
	keep("other", 4, newRecord(other.rows))
	keep("later", 6, newRecord(measured(1, 100).rows))

	now := measured(60, 110)
	rec := newRecord(now.rows)
	keep("now", 5, rec)
	earlier, err := before(out, rec)
	stack.Must(t, err)
	if earlier == nil || earlier.Commit != "before" {
		t.Fatalf("compared with %+v", earlier)
	}
	var table bytes.Buffer
	now.print(&table, earlier)
	want := `| figure | Tramo | tusd | at before | to reach | |
|---|---|---|---|---|---|
| ms for a photo | 60 | 110 | 40 +50 % (tusd +10 %) | ≤ 50 | **missed** |
| the same, against the bare PUT | 6.00x | – | 4.00x +50 % | – |  |
| requests | 1 | 0 | 1 = (tusd =) | 1 | met |
| the same, against the bare PUT | +Infx | – | – | – |  |
`
	if table.String() != want {
		t.Errorf("got\n%swant\n%s", table.String(), want)
	}
	stack.Want(t, rec.comparison(earlier), "Compared with 2026-11-02 12:00 UTC, commit before, , 2 cores of , Linux , load 0.10 at the start and 2.00 at the end; 0 repetitions.", "comparison")
	rec.Machine.Cores = 4
	if text := rec.comparison(earlier); !strings.Contains(text, "another machine") {
		t.Errorf("of another machine: %s", text)
	}
	read, err := readRecord(filepath.Join(out, "before", figuresFile))
	stack.Must(t, err)
	if f := read.Figures[0]; f.Name != "ms for a photo" || f.Median[tramo] != 40 || len(f.Values[tramo]) != 3 || f.Median[stock] != 100 || !f.Met || f.Target != "≤ 50" {
		t.Errorf("read back: %+v", f)
	}
	if len(read.Figures[3].Values) != 0 {
		t.Errorf("what is no number is in the file: %v", read.Figures[3].Values)
	}
}

// The first run has nothing to compare with; a file that is no record is told before anything is measured.
func TestCompareWithNothing(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	now := measured(60, 100)
	rec := newRecord(now.rows)
	earlier, err := before(out, rec)
	stack.Must(t, err)
	if earlier != nil {
		t.Fatalf("compared with %+v", earlier)
	}
	var table bytes.Buffer
	now.print(&table, earlier)
	if !strings.Contains(table.String(), "| ms for a photo | 60 | 100 | – | ≤ 50 | **missed** |\n") {
		t.Errorf("without a run before:\n%s", table.String())
	}
	broken := filepath.Join(out, "broken.json")
	stack.Must(t, os.WriteFile(broken, []byte("{"), 0o600))
	for _, path := range []string{broken, filepath.Join(out, "missing.json")} {
		if err := run(t.Context(), []string{"-compare", path, "-out", out}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "-compare: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Every row has a name of its own in the file.
func TestKeys(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, key := range keys(measured(1, 1).rows) {
		if seen[key] {
			t.Errorf("%q is there twice", key)
		}
		seen[key] = true
	}
}
