package problem

import (
	"errors"
	"strings"
	"testing"

	"github.com/tramo/tramo/docs"
)

// Every problem that a client can meet is explained in docs/reference/problems.md, and nothing else is.
func TestProblemsAreDocumented(t *testing.T) {
	t.Parallel()
	known := map[string]bool{internal.Name(): true, Tus(0).Name(): true}
	for _, row := range table {
		known[row.Name()] = true
		if row.Title == "" || row.Detail == "" || row.Status < 400 || len(row.causes) == 0 {
			t.Errorf("%v has an incomplete problem: %+v", row.causes, row.Problem)
		}
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(string(docs.Problems)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			documented[name] = true
		}
	}
	for name := range known {
		if !documented[name] {
			t.Errorf("docs/reference/problems.md does not explain %s", name)
		}
	}
	for name := range documented {
		if !known[name] {
			t.Errorf("docs/reference/problems.md explains %s, which does not exist", name)
		}
	}
}

// An error that the table does not have is told as an internal one, without its text.
func TestUnknownErrorsAreNotTold(t *testing.T) {
	t.Parallel()
	p, known := Of(errors.New("dial tcp 10.0.0.7:5432: password authentication failed"))
	if known || p.Type != internal.Type {
		t.Errorf("%+v, %v", p, known)
	}
}
