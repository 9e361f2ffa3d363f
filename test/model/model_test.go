// Package model checks the protocol of an upload in a model: all that can happen, in every order. docs/explanation/model.md
// explains it. It knows the code by the names of functions only.
package model

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const model = "upload.pml"

// guards are the guards that can be taken out of the model, each with the invariant that breaks first then, as the checker
// prints it.
var guards = map[string]struct{ defines, breaks string }{
	"NO_FENCE_CHECK":           {breaks: "multiparts[multipart]=="}, // a byte that counts is not durable
	"FENCE_CHECK_WITHOUT_LOCK": {breaks: "units[0]==hash[0]"},
	"NO_OFFSET_CHECK":          {breaks: "listed==received"},
	"TAKEN_FROM_THE_LIVING":    {breaks: "!(well[me])"},
	"RELEASED_WITHOUT_FENCE":   {breaks: "!(well[me])"},
	"EXPIRED_RENEWED":          {breaks: "!(well[me])"},
	"FENCES_COME_BACK":         {breaks: "!(well[me])"},
	"KEYS_WITHOUT_FENCE":       {breaks: "units[0]==hash[0]"},
	"PART_NUMBERS_COME_BACK":   {breaks: "units[0]==hash[0]"},
	"ANY_OFFSET":               {breaks: "units[1]==hash[1]"},
	"TAIL_DROPPED_FIRST":       {breaks: "multiparts[multipart]=="},
	"LOST_WITHOUT_FENCE":       {breaks: "status!="},
	"COMPLETED_TAKEN_FOR_LOST": {breaks: "status!="},
	"DELETED_WITHOUT_LEASE":    {breaks: "multiparts[multipart]=="},
	"OPENED_UNFINISHED":        {breaks: "told[0]<2"},
	"CREATION_TELLS_ALL":       {breaks: "told[0]<2"},
	"HEAD_TELLS_ALL":           {breaks: "told[0]<2"},
	"TOLD_BEFORE_FINISH":       {breaks: "told[0]<2"},
	"JOB_APART":                {breaks: "jobs=="},
	"RECORDED_TWICE":           {breaks: "jobs==", defines: "SEPARATE"},
}

// Nothing that can happen breaks an invariant, with transactions merged or apart, and all that the model says can happen.
func TestModelHolds(t *testing.T) {
	t.Parallel()
	for name, defines := range map[string][]string{"merged": nil, "separate": {"SEPARATE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChecker(t, defines)
			out := c.check()
			if !strings.Contains(out, "errors: 0") {
				t.Fatalf("%s\n%s", out, c.trail())
			}
			for _, incomplete := range []string{"max search depth too small", "Search not completed", "out of memory"} {
				if strings.Contains(out, incomplete) {
					t.Errorf("not all states were visited: %s", incomplete)
				}
			}
			c.wantReached(out)
		})
	}
}

// Each guard is needed: without it an invariant breaks.
func TestEachGuardIsNeeded(t *testing.T) {
	t.Parallel()
	if named := switches(t); !slices.Equal(named, slices.Sorted(maps.Keys(guards))) {
		t.Fatalf("the model has the guards %q", named)
	}
	for name, guard := range guards {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChecker(t, append(strings.Fields(guard.defines), name), "-DBFS") // finds a shortest counterexample
			out := c.check()
			broken := regexp.MustCompile(`assertion violated (.*) \(at depth`).FindStringSubmatch(out)
			if broken == nil {
				t.Fatalf("no invariant breaks:\n%s", out)
			}
			if !strings.Contains(broken[1], guard.breaks) {
				t.Errorf("%s breaks, not %s\n%s", broken[1], guard.breaks, c.trail())
			}
		})
	}
}

// switches returns the names that take a guard out.
func switches(t *testing.T) []string {
	t.Helper()
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#(?:ifn?def |(?:el)?if defined\()(\w+)`).FindAllStringSubmatch(read(t), -1) {
		names[m[1]] = true
	}
	delete(names, "SEPARATE")
	return slices.Sorted(maps.Keys(names))
}

func read(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A checker is a program that visits all states of a variant of the model.
type checker struct {
	t       *testing.T
	dir     string
	defines []string
}

func newChecker(t *testing.T, defines []string, options ...string) checker {
	t.Helper()
	c := checker{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.dir, model), []byte(read(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range defines {
		c.defines = append(c.defines, "-D"+d)
	}
	c.run("spin", append(slices.Clone(c.defines), "-a", model)...)
	// NOREDUCE: all steps read and write what all share, so that no order of two of them can be left out.
	c.run("gcc", append(options, "-O1", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c")...)
	return c
}

func (c checker) run(name string, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), name, args...)
	cmd.Dir = c.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (c checker) check() string {
	c.t.Helper()
	return c.run(filepath.Join(c.dir, "pan"), "-m100000")
}

// trail returns the steps that lead to what the checker has found.
func (c checker) trail() string {
	c.t.Helper()
	return c.run("spin", append(slices.Clone(c.defines), "-t", "-T", model)...)
}

// wantReached makes sure that the checker has been at each line but those that are marked.
func (c checker) wantReached(out string) {
	c.t.Helper()
	lines := strings.Split(read(c.t), "\n")
	for _, m := range regexp.MustCompile(`(?m)^\s+upload\.pml:(\d+), state \d+, "(.*)"$`).FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			c.t.Fatal(err)
		}
		if m[2] != "-end-" && !strings.Contains(lines[n-1], "/* unreached */") {
			c.t.Errorf("%s:%d does not happen: %s", model, n, m[2])
		}
	}
}

// packages are those whose functions the model names.
var packages = map[string]string{
	"storage": "storage", "lease": "storage/lease", "object": "storage/object", "queue": "processing/queue",
	"hooks": "hooks", "reconcile": "hooks/reconcile", "tus": "server/tus",
}

// What the model says that its steps stand for is in the code.
func TestStepsAreFunctions(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	for name, dir := range packages {
		declare(t, declared, name, filepath.Join("../..", filepath.FromSlash(dir)))
	}
	named := 0
	for _, comment := range regexp.MustCompile(`code: ([^*]*)`).FindAllStringSubmatch(read(t), -1) {
		for name := range strings.SplitSeq(strings.TrimSpace(comment[1]), ", ") {
			if named++; !declared[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d names were found", named)
	}
}

// declare adds the functions, methods and constants of a package, such as lease.Manager.Acquire.
func declare(t *testing.T, declared map[string]bool, name, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, err, fs.ErrNotExist)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				declared[name+"."+receiver(d)+d.Name.Name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						for _, n := range v.Names {
							declared[name+"."+n.Name] = true
						}
					}
				}
			}
		}
	}
}

// receiver returns the name of a method's type with a dot, or "".
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if p, ok := of.(*ast.StarExpr); ok {
		of = p.X
	}
	if id, ok := of.(*ast.Ident); ok {
		return id.Name + "."
	}
	return "?."
}
