package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// engines makes a directory with programs that stand for container engines: they write down how they are called. A name with
// ! is installed and does not work, as a docker without its daemon.
func engines(t *testing.T, names ...string) (path, calls string) {
	t.Helper()
	path = t.TempDir()
	calls = filepath.Join(path, "calls")
	for _, tool := range []string{"bash", "sed", "git", "cat", "dirname"} {
		at, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(path, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		broken := strings.HasSuffix(name, "!")
		name = strings.TrimSuffix(name, "!")
		script := "#!/bin/sh\n[ \"$1\" != info ] || exit 0\necho " + name + " \"$@\" >>" + calls + "\n"
		if broken {
			script = "#!/bin/sh\nexit 1\n"
		}
		if err := os.WriteFile(filepath.Join(path, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path, calls
}

// make image uses the first engine that works, and says what is missing where none does.
func TestImageBuildPicksAnEngine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		there []string
		env   string
		want  string // of the first call; "" if no image can be built
	}{
		{[]string{"docker", "podman", "buildah"}, "", "docker build --target server --tag tramo:"},
		{[]string{"docker!", "podman", "buildah"}, "", "podman build --format docker --target server"},
		{[]string{"buildah"}, "IMAGE_PREFIX=registry.example.com/ours/", "buildah build --format docker --target server --tag registry.example.com/ours/tramo:"},
		{[]string{"docker", "buildah"}, "ENGINE=buildah", "buildah build"},
		{[]string{"docker"}, "ENGINE=podman", ""},
		{[]string{"docker!"}, "", ""},
		{nil, "", ""},
	} {
		path, calls := engines(t, c.there...)
		build := exec.CommandContext(t.Context(), filepath.Join(path, "bash"), filepath.Join(root, "deploy/image/build.sh"), "--pull")
		build.Env = []string{"PATH=" + path, "HOME=" + path, c.env}
		out, err := build.CombinedOutput()
		if c.want == "" {
			if err == nil || !strings.Contains(string(out), "docker with its daemon running, podman or buildah") {
				t.Errorf("%q %s: %v: %s", c.there, c.env, err, out)
			}
			continue
		}
		called, readErr := os.ReadFile(calls)
		lines := strings.Split(strings.TrimSpace(string(called)), "\n")
		if err != nil || readErr != nil || len(lines) != 2 || !strings.HasPrefix(lines[0], c.want) {
			t.Errorf("%q %s: %v %v: %q, want %q first: %s", c.there, c.env, err, readErr, lines, c.want, out)
			continue
		}
		if !strings.Contains(lines[1], "--target worker") || !strings.Contains(lines[1], "tramo-worker:0.") || !strings.HasSuffix(lines[1], "--pull .") ||
			!strings.Contains(lines[1], "--build-arg VERSION=0.") || !strings.Contains(lines[1], "--build-arg REVISION=") {
			t.Errorf("%q: the worker is built by %q", c.there, lines[1])
		}
	}
}
