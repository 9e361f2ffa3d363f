package stack_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// Where a machine has none of the programs that draw, make run asks for those of PDFs and of films: a newcomer's first film has its
// poster.
func TestRunInstallsWhatDraws(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	for _, name := range []string{"bash", "dirname", "sed", "go", "grep", "head", "cat"} {
		program, err := osexec.LookPath(name)
		stack.Must(t, err)
		stack.Must(t, os.Symlink(program, filepath.Join(path, name)))
	}
	root, err := stack.RepoRoot() // the S3 server, which runs in this process, changes its directory
	stack.Must(t, err)
	cmd := osexec.CommandContext(t.Context(), "bash", filepath.Join(root, "test/stack/install.sh"), "run")
	cmd.Env = append(os.Environ(), "PATH="+path)
	out, err := cmd.CombinedOutput() // there is no apt-get either
	if err == nil {
		t.Fatalf("nothing is missing:\n%s", out)
	}
	for _, name := range []string{"poppler-utils", "ffmpeg"} {
		if !strings.Contains(string(out), name) {
			t.Errorf("%s is not asked for:\n%s", name, out)
		}
	}
}
