package server

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
)

func TestCheckMetadataHeader(t *testing.T) {
	t.Parallel()
	for header, good := range map[string]bool{
		"":                     true,
		"a":                    true,
		"a YQ==":               true,
		"a YQ==,b Yg==":        true,
		"a YQ==, b":            true,
		"a YQ":                 false,
		"a YQ==,":              false,
		",a YQ==":              false,
		"a YQ==,a YQ==":        false,
		"a YQ== YQ==":          false,
		"filename w7Fhbg==, b": true,
	} {
		if err := checkMetadataHeader(header); (err == nil) != good {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// Whatever passes, tusd reads in full: it drops nothing silently.
func FuzzCheckMetadataHeader(f *testing.F) {
	for _, s := range []string{"a YQ==,b", "a YQ==", ", ,", "a  YQ==", "\x00 YQ==", "a YQ==,b Yg==,c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		err := checkMetadataHeader(header)
		if err != nil {
			if !errors.Is(err, hooks.ErrBadMetadata) {
				t.Errorf("%q is refused as %v", header, err)
			}
			return
		}
		read := handler.ParseMetadataHeader(header)
		for pair := range strings.SplitSeq(header, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
			want, _ := base64.StdEncoding.DecodeString(value)
			if got, ok := read[key]; key != "" && (!ok || got != string(want)) {
				t.Errorf("%q: tusd reads %q as %q, %v", header, key, got, ok)
			}
		}
	})
}

// Every problem that a client can meet is explained in docs/reference/problems.md, and nothing else is.
func TestProblemsAreDocumented(t *testing.T) {
	t.Parallel()
	_, here, _, _ := runtime.Caller(0) // TestMain's S3 server has moved the working directory away
	page, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../docs/reference/problems.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"tus": true, "internal": true}
	for _, row := range problems {
		known[strings.TrimPrefix(row.problem.Type, "/problems/")] = true
		if row.problem.Title == "" || row.problem.Detail == "" || row.problem.Status < 400 {
			t.Errorf("%v has an incomplete problem: %+v", row.cause, row.problem)
		}
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(string(page)) {
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
	p, known := asProblem(errors.New("dial tcp 10.0.0.7:5432: password authentication failed"))
	if known || p.Type != internalProblem.Type {
		t.Errorf("%+v, %v", p, known)
	}
}
