package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A record is what one run measured, as its file has it.
type record struct {
	Commit   string    `json:"commit"` // with -dirty behind it if files were changed
	Date     time.Time `json:"date"`
	Machine  machine   `json:"machine"`
	Load     [2]string `json:"load"` // processes that wanted to run, at the start and at the end
	Repeat   int       `json:"repeat"`
	Profiled bool      `json:"profiled"` // and so slower
	Figures  []figure  `json:"figures"`
}

// A machine is where a run took place. Only counts of different machines can be compared.
type machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Go     string `json:"go"`
	Kernel string `json:"kernel"`
}

// A figure is a row of the table, with each repetition's value.
type figure struct {
	Name   string             `json:"name"`
	Median map[peer]float64   `json:"median"`
	Values map[peer][]float64 `json:"values"`
	Target string             `json:"to_reach,omitempty"`
	Met    bool               `json:"met"` // also where there is no target
}

// figuresFile is the name of a record in its run's folder.
const figuresFile = "figures.json"

// newRecord is what rows say. Values that are no numbers, such as a division by nothing, are left out.
func newRecord(rows []row) *record {
	rec := &record{}
	for i, key := range keys(rows) {
		r := rows[i]
		f := figure{Name: key, Median: map[peer]float64{}, Values: map[peer][]float64{}, Target: r.target, Met: r.target == "" || r.met}
		for p, values := range r.figures {
			numbers := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
			if len(numbers) > 0 {
				f.Values[p], f.Median[p] = numbers, quantile(numbers, 0.5)
			}
		}
		rec.Figures = append(rec.Figures, f)
	}
	return rec
}

// keys names rows so that each name is there once. "The same" stands below the row that it continues.
func keys(rows []row) []string {
	var names []string
	var last string
	for _, r := range rows {
		if strings.HasPrefix(r.name, "the same") {
			names = append(names, last+": "+r.name)
			continue
		}
		last = r.name
		names = append(names, r.name)
	}
	return names
}

// write makes the record a file in dir, a new one or none.
func (rec *record) write(dir string) error {
	content, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, figuresFile), append(content, '\n'), 0o644)
}

func readRecord(path string) (*record, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rec := &record{}
	if err := json.Unmarshal(content, rec); err != nil {
		return nil, fmt.Errorf("read the figures in %s: %w", path, err)
	}
	return rec, nil
}

// before returns the newest record below out that was written before rec, was not profiled, and has one of its figures;
// nil if there is none.
func before(out string, rec *record) (*record, error) {
	paths, err := filepath.Glob(filepath.Join(out, "*", figuresFile))
	if err != nil {
		return nil, err
	}
	var newest *record
	for _, path := range paths {
		other, err := readRecord(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		if other.Date.Before(rec.Date) && !other.Profiled && other.shares(rec) && (newest == nil || other.Date.After(newest.Date)) {
			newest = other
		}
	}
	return newest, nil
}

// shares reports whether both have a figure of Tramo's.
func (rec *record) shares(other *record) bool {
	return slices.ContainsFunc(rec.Figures, func(f figure) bool {
		_, measured := f.Median[tramo]
		return measured && slices.ContainsFunc(other.Figures, func(o figure) bool { return o.Name == f.Name })
	})
}

// beside is the cell that an earlier record adds to a row: Tramo's figure then, and by how much it has changed. Where
// stock tusd was measured too, its change says how far the machine differs.
func (rec *record) beside(key string, r row) string {
	if rec == nil {
		return "–"
	}
	i := slices.IndexFunc(rec.Figures, func(f figure) bool { return f.Name == key })
	if i < 0 {
		return "–"
	}
	then := rec.Figures[i].Median
	cell := "–"
	if was, ok := then[tramo]; ok {
		cell = fmt.Sprintf(r.format, was) + change(was, r.figures, tramo)
	}
	if was, ok := then[stock]; ok && change(was, r.figures, stock) != "" {
		cell += " (" + string(stock) + change(was, r.figures, stock) + ")"
	}
	return cell
}

// change says by how much a peer's figure has changed, with a blank before it; "" if it cannot be said.
func change(was float64, f figures, p peer) string {
	switch now := f.of(p); {
	case len(f[p]) == 0:
		return ""
	case now == was:
		return " ="
	case was == 0 || math.IsInf(now, 0) || math.IsNaN(now):
		return ""
	default:
		return fmt.Sprintf(" %+.0f %%", (now/was-1)*100)
	}
}

// String says where and when a table was measured. A load above the number of cores says that the machine did other
// things too: then only counts, CPU and memory are to be trusted, and ratios more than times.
func (rec *record) String() string {
	return fmt.Sprintf("%s, commit %s, %s, load %s at the start and %s at the end; %d repetitions",
		rec.Date.Format("2006-01-02 15:04 UTC"), rec.Commit, rec.Machine, rec.Load[0], rec.Load[1], rec.Repeat)
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores of %s, Linux %s", m.Go, m.Cores, m.CPU, m.Kernel)
}

// comparison says what a table is compared with.
func (rec *record) comparison(earlier *record) string {
	switch {
	case earlier == nil:
		return "No earlier run has any of these figures."
	case earlier.Machine != rec.Machine:
		return fmt.Sprintf("Compared with another machine, so that only counts tell something: %s.", earlier)
	default:
		return fmt.Sprintf("Compared with %s.", earlier)
	}
}
