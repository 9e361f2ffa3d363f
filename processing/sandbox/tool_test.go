//go:build linux

package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tramo/tramo/processing/sandbox"
)

// self is the test program as a tool.
func self(arguments ...string) sandbox.Tool {
	return sandbox.Tool{Program: "/proc/self/exe", Args: append([]string{"tool"}, arguments...)}
}

// A tool finds its file at its standard input, at its beginning, and by name; what it writes to its standard output comes back.
func TestToolReadsItsFile(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	for _, arguments := range [][]string{nil, {sandbox.StdinPath}} {
		var out bytes.Buffer
		must(t, box.Run(t.Context(), sandbox.Tool{Program: "cat", Args: arguments}, file(t, "content"), sandbox.Limits{}, &out))
		if out.String() != "content" {
			t.Errorf("%q with %q", out.String(), arguments)
		}
	}
}

// A real program that draws works under all of it: fonts, libraries, threads.
func TestToolDraws(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	var out bytes.Buffer
	tool := sandbox.Tool{Program: "pdftoppm", Args: []string{"-f", "1", "-l", "1", "-singlefile", "-scale-to", "200", "-png", sandbox.StdinPath}}
	must(t, box.Run(t.Context(), tool, file(t, onePage), sandbox.Limits{}, &out))
	if !bytes.HasPrefix(out.Bytes(), []byte("\x89PNG")) {
		t.Errorf("%d bytes: %.40q", out.Len(), out.Bytes())
	}
}

// A page with a word on it, in a font that the file does not carry. Readers rebuild the missing table.
const onePage = `%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>> endobj
4 0 obj <</Length 36>> stream
BT /F 24 Tf 20 100 Td (Obra) Tj ET
endstream endobj
5 0 obj <</Type/Font/Subtype/Type1/BaseFont/Helvetica>> endobj
trailer <</Root 1 0 R>>
`

func TestToolHitsLimits(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	for how, c := range map[string]struct {
		limits sandbox.Limits
		want   string
	}{
		"hang":  {sandbox.Limits{Memory: 4 << 30, Wall: time.Second}, sandbox.LimitTime},
		"spin":  {sandbox.Limits{Memory: 4 << 30, CPU: time.Second}, sandbox.LimitCPU},
		"hoard": {sandbox.Limits{Memory: 256 << 20}, sandbox.LimitMemory},
		"flood": {sandbox.Limits{Memory: 4 << 30, Output: 1 << 20}, sandbox.LimitOutput},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			err := box.Run(t.Context(), self(how), file(t, "x"), c.limits, io.Discard)
			var limit *sandbox.LimitError
			if !errors.As(err, &limit) || limit.Limit != c.want {
				t.Errorf("%v, want the limit of %s", err, c.want)
			}
		})
	}
}

// What keeps a tool from drawing is told apart: it is not there, it failed, or nobody waits for it any more.
func TestToolFails(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	if err := box.Run(t.Context(), sandbox.Tool{Program: "no-such-program"}, file(t, ""), sandbox.Limits{}, io.Discard); !errors.Is(err, sandbox.ErrNoProgram) {
		t.Errorf("%v, want ErrNoProgram", err)
	}
	var failed *sandbox.ToolError
	err := box.Run(t.Context(), sandbox.Tool{Program: "cat", Args: []string{"/no/such/file"}}, file(t, ""), sandbox.Limits{}, io.Discard)
	if !errors.As(err, &failed) || failed.Code != 1 || failed.Program != "cat" || failed.Said == "" {
		t.Errorf("%v, want a ToolError with what cat said", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := box.Run(ctx, self("hang"), file(t, ""), roomy, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
}

// tryTool has the test program try an attack as a tool.
func tryTool(t *testing.T, box *sandbox.Box, name, target string) report {
	t.Helper()
	var out bytes.Buffer
	if err := box.Run(t.Context(), self(name, target), file(t, "x"), roomy, &out); err != nil {
		return report{Said: err.Error()}
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%s: %v in %q", name, err, out.String())
	}
	return r
}
