package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// figures are what was measured of each peer, once a repetition.
type figures map[peer][]float64

func (f figures) add(p peer, v float64) { f[p] = append(f[p], v) }

// named are figures that have names.
type named map[string]figures

func (n named) add(name string, p peer, v float64) {
	if n[name] == nil {
		n[name] = figures{}
	}
	n[name].add(p, v)
}

// of is the median, or 0 if nothing was measured.
func (f figures) of(p peer) float64 { return quantile(f[p], 0.5) }

// by divides each peer's figures by its others of the same repetition.
func (f figures) by(others figures) figures {
	ratios := figures{}
	for p, values := range f {
		for i, v := range values {
			ratios.add(p, v/others[p][i])
		}
	}
	return ratios
}

// over divides each peer's figure by another one's of the same repetition and returns the medians' ratios as figures.
func (f figures) over(base peer) figures {
	ratios := figures{}
	for p, values := range f {
		for i, v := range values {
			if i < len(f[base]) && f[base][i] != 0 {
				ratios.add(p, v/f[base][i])
			}
		}
	}
	return ratios
}

// quantile returns the smallest value that at least the share q of values does not exceed.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// A report is a table of what was measured, in Markdown.
type report struct {
	progress io.Writer
	begun    time.Time
	rows     []string
	missed   int
}

var columns = []peer{tramo, stock, tuned, unhashed, bare}

// row adds one figure of every peer, and whether Tramo's meets its target; no target, no verdict.
func (r *report) row(name string, f figures, format, target string, met bool) {
	cells := []string{name}
	for _, p := range columns {
		cell := "–"
		if len(f[p]) > 0 {
			cell = fmt.Sprintf(format, f.of(p))
		}
		cells = append(cells, cell)
	}
	verdict := "met"
	switch {
	case target == "":
		target, verdict = "–", ""
	case !met:
		verdict = "**missed**"
		r.missed++
	}
	line := "| " + strings.Join(append(cells, target, verdict), " | ") + " |"
	r.rows = append(r.rows, line)
	fmt.Fprintln(r.progress, line)
}

// note prints what is not in the table.
func (r *report) note(format string, args ...any) {
	fmt.Fprintf(r.progress, "  %5.0fs  "+format+"\n", append([]any{time.Since(r.begun).Seconds()}, args...)...)
}

// spread notes every repetition's value.
func (r *report) spread(name string, f figures) {
	for _, p := range slices.Sorted(maps.Keys(f)) {
		r.note("%s, %s: %.4g", name, p, f[p])
	}
}

func (r *report) print(w io.Writer) {
	fmt.Fprint(w, "| figure |")
	for _, p := range columns {
		fmt.Fprintf(w, " %s |", p)
	}
	fmt.Fprint(w, " to reach | |\n|---|")
	fmt.Fprintln(w, strings.Repeat("---|", len(columns)+2))
	for _, row := range r.rows {
		fmt.Fprintln(w, row)
	}
}
