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
	rows     []row
}

// A row is one figure of every peer.
type row struct {
	name    string
	figures figures
	format  string // of a value, for fmt
	target  string // "" for none
	met     bool   // by Tramo
}

var columns = []peer{tramo, stock, tuned, unhashed, bare, legacy}

// row adds one figure of every peer, and whether Tramo's meets its target; no target, no verdict.
func (r *report) row(name string, f figures, format, target string, met bool) {
	added := row{name: name, figures: f, format: format, target: target, met: met}
	r.rows = append(r.rows, added)
	fmt.Fprintln(r.progress, added.line(columns, "–"))
}

// line is the row with a cell for each of the peers, what was measured before, the target and the verdict.
func (r row) line(peers []peer, before string) string {
	cells := []string{r.name}
	for _, p := range peers {
		cells = append(cells, r.cell(p))
	}
	cells = append(cells, before)
	switch {
	case r.target == "":
		cells = append(cells, "–", "")
	case r.met:
		cells = append(cells, r.target, "met")
	default:
		cells = append(cells, r.target, "**missed**")
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

// cell is a peer's median, as a table shows it.
func (r row) cell(p peer) string {
	if len(r.figures[p]) == 0 {
		return "–"
	}
	return fmt.Sprintf(r.format, r.figures.of(p))
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

// print prints the table of the peers that were measured, beside an earlier run's figures; nil for none.
func (r *report) print(w io.Writer, earlier *record) {
	peers := slices.DeleteFunc(slices.Clone(columns), func(p peer) bool {
		return !slices.ContainsFunc(r.rows, func(r row) bool { return len(r.figures[p]) > 0 })
	})
	fmt.Fprint(w, "| figure |")
	for _, p := range peers {
		fmt.Fprintf(w, " %s |", p)
	}
	before := "before"
	if earlier != nil {
		before = "at " + earlier.Commit
	}
	fmt.Fprintf(w, " %s | to reach | |\n|---|%s\n", before, strings.Repeat("---|", len(peers)+3))
	for i, key := range keys(r.rows) {
		fmt.Fprintln(w, r.rows[i].line(peers, earlier.beside(key, r.rows[i])))
	}
}
