package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A step is a command block of docs/tutorial/first-upload.md, and the answer that the page shows for it, if it does.
type step struct {
	line     int
	commands string
	shown    string
}

// stepsOf reads the blocks of a page that are marked as commands (sh), each with a block of JSON right behind it if there
// is one.
func stepsOf(t *testing.T, page string) (steps []step) {
	t.Helper()
	var kind string
	var block strings.Builder
	ended := 0 // the line of the last block's end
	n := 0
	for line := range strings.Lines(page) {
		n++
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && kind == "":
			if kind = fence; kind == "" {
				t.Fatalf("line %d: a block does not say what it is", n)
			}
			block.Reset()
			if kind == "sh" {
				steps = append(steps, step{line: n})
			} else if kind == "json" && ended != n-1 {
				t.Fatalf("line %d: an answer does not stand right behind its commands", n)
			}
		case isFence:
			switch kind {
			case "sh":
				steps[len(steps)-1].commands = block.String()
			case "json":
				steps[len(steps)-1].shown = block.String()
			}
			kind, ended = "", n
		case kind != "":
			block.WriteString(line)
		}
	}
	return steps
}

// script runs all steps in one shell, as a reader does, and stops at the first that fails. What each prints goes to a
// file of its own.
func script(steps []step) string {
	var b strings.Builder
	b.WriteString("set -euo pipefail\n")
	for i, s := range steps {
		fmt.Fprintf(&b, "echo 'docs/tutorial/first-upload.md, line %d' >&2\n{\n%s} > out.%d\n", s.line, s.commands, i)
	}
	return b.String()
}

// A newcomer follows docs/tutorial/first-upload.md with curl alone: every command in it works, one after the other, against a server that
// was given a token, a photo and where webhooks go, and answers in the shape that the page shows.
func TestGuide(t *testing.T) {
	t.Parallel()
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	steps := stepsOf(t, string(read(t, filepath.Join(root, "docs/tutorial/first-upload.md"))))
	if len(steps) < 10 {
		t.Fatalf("only %d steps", len(steps))
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "photo.jpg"), read(t, fieldPhoto(t)))
	private, _ := newReceiptKey(t)
	r, err := tramo.serve(stack.Context(t), "TRAMO_RECEIPT_KEY_FILE="+private, // and with the limits that there are by default
		"TRAMO_RATE_IP=1000", "TRAMO_RATE_IP_TRANSFERS=12000", "TRAMO_RATE_USER=100", "TRAMO_RATE_UPLOADS=50",
		"TRAMO_RATE_USER_TRANSFERS=3000", "TRAMO_RATE_USER_THUMBNAILS=3000", "TRAMO_TENANT_UPLOADS=500")
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, r.Stop()) })
	tenant, _ := newTenant(t, "50GiB")
	u := tramo.userOf(t, tenant, "ana", "constructora") // as make run has it
	hook, _ := newReceiver(t, nil)

	out, err := stack.Run(stack.Context(t), stack.ProcessConfig{
		Path: "/bin/bash", Args: []string{"-c", script(steps)}, Dir: dir,
		Env: stack.CleanEnv("TRAMO="+watched(t, r).URL, "TOKEN="+u.token, "HOOK="+hook),
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, s := range steps {
		if s.shown == "" {
			continue
		}
		printed := read(t, filepath.Join(dir, fmt.Sprintf("out.%d", i)))
		if err := sameShape(fromJSON(t, s.shown), fromJSON(t, string(printed))); err != nil {
			t.Errorf("docs/tutorial/first-upload.md, line %d: %v; it printed %s", s.line, err, printed)
		}
	}
}

func fromJSON(t *testing.T, s string) (v any) {
	t.Helper()
	if err := json.NewDecoder(bytes.NewReader([]byte(s))).Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, s)
	}
	return v
}

// sameShape compares what a page shows with what was answered: the fields, and their types. Values differ from day to
// day; of a list the first item counts.
func sameShape(shown, got any) error {
	switch shown := shown.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || !slices.Equal(slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(got))) {
			return fmt.Errorf("shown is %v, answered was %v", shown, got)
		}
		for key := range shown {
			if err := sameShape(shown[key], got[key]); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		return nil
	case []any:
		got, ok := got.([]any)
		if !ok || len(shown) > 0 != (len(got) > 0) {
			return fmt.Errorf("shown is %v, answered was %v", shown, got)
		}
		if len(shown) > 0 {
			return sameShape(shown[0], got[0])
		}
		return nil
	}
	if fmt.Sprintf("%T", shown) != fmt.Sprintf("%T", got) {
		return fmt.Errorf("shown is %v, answered was %v", shown, got)
	}
	return nil
}
