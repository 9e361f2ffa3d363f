package deploy

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// inContext returns which files a builder gets to see.
func inContext(t *testing.T) func(path string) bool {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(read(t, ".dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return func(path string) bool {
		ignored, err := m.MatchesOrParentMatches(path)
		if err != nil {
			t.Fatal(err)
		}
		return !ignored
	}
}

// The build gets every file that the Go compiler and the page's build read, and none that could hold a secret.
func TestBuildContext(t *testing.T) {
	t.Parallel()
	sees := inContext(t)
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=Dir,Module,GoFiles,CgoFiles,CFiles,HFiles,SFiles,EmbedFiles", "./cmd/tramo", "./cmd/tramo-worker")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, out)
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"go.mod", "go.sum"}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p struct {
			Dir                                                   string
			Module                                                *struct{ Main bool }
			GoFiles, CgoFiles, CFiles, HFiles, SFiles, EmbedFiles []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || !p.Module.Main {
			continue
		}
		dir, err := filepath.Rel(top, p.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.CFiles, p.HFiles, p.SFiles, p.EmbedFiles) {
			if path := filepath.Join(dir, name); !strings.HasPrefix(path, "web/dist/") { // which the stage page makes
				wanted = append(wanted, path)
			}
		}
	}
	if len(wanted) < 100 {
		t.Fatalf("only %d files: go list did not see the programs", len(wanted))
	}
	wanted = append(wanted, slices.DeleteFunc(tracked(t, "web"), func(path string) bool {
		return strings.HasSuffix(path, "_test.go")
	})...)
	for _, path := range wanted {
		if !sees(path) {
			t.Errorf(".dockerignore hides %s, which the build needs", path)
		}
	}
	for _, path := range []string{
		".git/config", ".tramo/secrets.json", "bin/tramo", "web/node_modules/vite/package.json", "web/dist/index.html", "test/stack/s3.go",
		"deploy/compose/.env", "deploy/compose/secrets/jwt", ".env", "receipt-key.pem", "hooks/finish_test.go", "processing/testdata/a.jpg", "Makefile",
	} {
		if sees(path) {
			t.Errorf("%s gets into the build", path)
		}
	}
}

// Each COPY from the checkout finds something that .dockerignore lets through.
func TestCopiedFilesExist(t *testing.T) {
	t.Parallel()
	sees := inContext(t)
	parsed, err := parser.Parse(strings.NewReader(read(t, "Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	copies := 0
	for _, s := range stages {
		for _, c := range s.Commands {
			c, ok := c.(*instructions.CopyCommand)
			if !ok || c.From != "" {
				continue
			}
			copies++
			for _, source := range c.SourcePaths {
				if !slices.ContainsFunc(tracked(t, source), sees) {
					t.Errorf("line %d: COPY %s finds nothing", c.Location()[0].Start.Line, source)
				}
			}
		}
	}
	if copies == 0 {
		t.Error("nothing is copied")
	}
}

// tracked returns the files of the repository below a path.
func tracked(t *testing.T, path string) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "ls-files", path)
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files %s: %v", path, err)
	}
	return strings.Fields(string(out))
}
