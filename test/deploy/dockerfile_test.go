package deploy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// root is the repository's.
const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// bases answers for every image that it has no configuration, so that no registry is asked.
type bases struct{}

func (bases) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.FromString(ref), []byte(`{"architecture":"amd64","os":"linux","config":{}}`), nil
}

// lint returns what BuildKit's linter says of a Dockerfile.
func lint(t *testing.T, text string) (found []string) {
	t.Helper()
	source := &llb.SourceMap{Filename: "Dockerfile", Data: []byte(text), Definition: new(llb.Definition)}
	results, err := dockerfile2llb.DockerfileLint(t.Context(), []byte(text), dockerfile2llb.ConvertOpt{SourceMap: source, MetaResolver: bases{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range results.Warnings {
		found = append(found, fmt.Sprintf("line %d: %s: %s", line(w.Location), w.RuleName, w.Detail))
	}
	if results.Error != nil {
		found = append(found, fmt.Sprintf("line %d: %s", line(&results.Error.Location), results.Error.Message))
	}
	return found
}

func line(l *pb.Location) int32 {
	if l == nil || len(l.Ranges) == 0 || l.Ranges[0].Start == nil {
		return 0
	}
	return l.Ranges[0].Start.Line
}

// reviewDockerfile returns what is wrong with the images that a Dockerfile makes: their user, their programs, their labels, and what
// one of the three builders refuses.
func reviewDockerfile(t *testing.T, text string) (found []string) {
	t.Helper()
	parsed, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return []string{err.Error()}
	}
	stages, metaArgs, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return []string{err.Error()}
	}
	complain := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	defaults := make(map[string]string)
	for _, a := range metaArgs {
		for _, pair := range a.Args {
			if pair.Value != nil {
				defaults[pair.Key] = *pair.Value
			}
		}
	}
	named := make(map[string]bool)
	for _, s := range stages {
		base := os.Expand(s.BaseName, func(name string) string { return defaults[name] })
		if base != "scratch" && !named[base] && !pinned(base) {
			complain("%s: the base %s has no host or no tag of a Debian release", s.Name, base)
		}
		for _, c := range s.Commands {
			reviewPortability(s.Name, c, complain)
			if c, ok := c.(*instructions.CopyCommand); ok && c.From != "" && !named[c.From] {
				complain("%s: COPY from %s, which is no earlier stage", s.Name, c.From)
			}
		}
		named[s.Name] = true
	}
	for name, want := range map[string]string{"server": "scratch", "worker": "docker.io/library/debian:trixie-slim"} {
		i := slices.IndexFunc(stages, func(s instructions.Stage) bool { return s.Name == name })
		if i < 0 {
			complain("there is no target %s", name)
			continue
		}
		if base := os.Expand(stages[i].BaseName, func(name string) string { return defaults[name] }); base != want {
			complain("%s: the base is %s, want %s", name, base, want)
		}
		reviewTarget(stages[i], complain)
	}
	return found
}

// pinned reports whether an image is named by host and a tag that stays with one release of Debian.
func pinned(image string) bool {
	return regexp.MustCompile(`^docker\.io/library/[a-z]+:([0-9.]+-)?trixie(-slim)?$`).MatchString(image)
}

func reviewPortability(stage string, c instructions.Command, complain func(string, ...any)) {
	switch c := c.(type) {
	case *instructions.RunCommand:
		if len(c.Files) > 0 {
			complain("%s: a here-document, which buildah refuses", stage)
		}
		if text := strings.Join(c.CmdLine, " "); strings.Contains(text, "apt-get install") && !strings.Contains(text, "--no-install-recommends") {
			complain("%s: apt-get install without --no-install-recommends", stage)
		}
	case *instructions.CopyCommand:
		if c.Link {
			complain("%s: COPY --link, which buildah refuses", stage)
		}
	case *instructions.AddCommand:
		complain("%s: ADD; COPY says all that is needed", stage)
	}
}

// reviewTarget holds a target to what docs/reference/images.md says of the images.
func reviewTarget(s instructions.Stage, complain func(string, ...any)) {
	var user string
	var entrypoint, health []string
	labels, files := make(map[string]string), make(map[string]bool)
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			entrypoint = c.CmdLine
			if c.PrependShell {
				complain("%s: ENTRYPOINT needs a shell", s.Name)
			}
		case *instructions.HealthCheckCommand:
			health = c.Health.Test
		case *instructions.CopyCommand:
			files[c.DestPath] = true
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				labels[strings.Trim(l.Key, `"`)] = strings.Trim(l.Value, `"`)
			}
		case *instructions.RunCommand:
			if s.BaseName == "scratch" {
				complain("%s: RUN in an image without a shell", s.Name)
			}
		}
	}
	if user != "65532:65532" {
		complain("%s: the user is %q, want 65532:65532, by number: Kubernetes checks runAsNonRoot by it", s.Name, user)
	}
	if len(entrypoint) != 1 || !files[entrypoint[0]] {
		complain("%s: the entrypoint is %q, which is not the program that was copied", s.Name, entrypoint)
		entrypoint = []string{""}
	}
	if !slices.Equal(health, []string{"CMD", entrypoint[0], "healthcheck"}) {
		complain("%s: the health check is %q, want the program's own", s.Name, health)
	}
	for _, key := range []string{"title", "description", "source", "documentation", "licenses", "version", "revision"} {
		if labels["org.opencontainers.image."+key] == "" {
			complain("%s: there is no label org.opencontainers.image.%s", s.Name, key)
		}
	}
	for key, want := range map[string]string{"version": "$VERSION", "revision": "$REVISION"} {
		if got := labels["org.opencontainers.image."+key]; got != want {
			complain("%s: the label %s is %q, want %s", s.Name, key, got, want)
		}
	}
}

// The Dockerfile passes BuildKit's linter, and its images are as the documentation says.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text := read(t, "Dockerfile")
	for _, mistake := range append(lint(t, text), reviewDockerfile(t, text)...) {
		t.Error(mistake)
	}
	want := regexp.MustCompile(`(?m)^export GOTOOLCHAIN := (\S+)$`).FindStringSubmatch(read(t, "Makefile"))
	got := regexp.MustCompile(`(?m)^ARG GOTOOLCHAIN=(\S+)$`).FindAllStringSubmatch(text, -1)
	if want == nil || len(got) != 2 || got[0][1] != want[1] || got[1][1] != want[1] {
		t.Errorf("the images are built with %q, and make builds with %q", got, want)
	}
}

// Each of these mistakes is found.
func TestDockerfileMistakes(t *testing.T) {
	t.Parallel()
	text := read(t, "Dockerfile")
	for _, c := range []struct{ old, planted, want string }{
		{"FROM scratch AS server", "FROM scratch as server", "FromAsCasing"},
		{"FROM scratch AS server", "FROM scratch AS Server", "StageNameCasing"},
		{"FROM scratch AS server", "FROM alpine AS server", "the base is alpine"},
		{"debian:trixie-slim", "debian:latest", "no tag of a Debian release"},
		{"debian:trixie-slim", "debian:bookworm-slim", "no tag of a Debian release"},
		{"docker.io/library/golang", "golang", "has no host"},
		{"AS worker\n", "AS workers\n", "there is no target worker"},
		{`ENTRYPOINT ["/usr/bin/tramo"]`, "ENTRYPOINT /usr/bin/tramo", "JSONArgsRecommended"},
		{`ENTRYPOINT ["/usr/bin/tramo"]`, `ENTRYPOINT ["/usr/bin/tramoo"]`, "not the program that was copied"},
		{`CMD ["/usr/bin/tramo", "healthcheck"]`, `CMD ["/usr/bin/tramo", "healthcheck", "--ready"]`, "the health check is"},
		{`CMD ["/usr/bin/tramo-worker", "healthcheck"]`, `CMD /usr/bin/tramo-worker healthcheck`, "the health check is"},
		{"ENV TRAMO_OPS_LISTEN=:9091", "ENV TRAMO_OPS_LISTEN :9091", "LegacyKeyValueFormat"},
		{"ENV TRAMO_OPS_LISTEN=:9091", "ENV TRAMO_JWT_SECRET=none", "SecretsUsedInArgOrEnv"},
		{"USER 65532:65532", "USER nonroot", "want 65532:65532"},
		{"WORKDIR /src/web", "WORKDIR web", "WorkdirRelativePath"},
		{"WORKDIR /src/web", "WORKDIR $SRC/web", "UndefinedVar"},
		{"--platform=$BUILDPLATFORM ${GO_IMAGE}", "--platform=linux/amd64 ${GO_IMAGE}", "FromPlatformFlagConstDisallowed"},
		{"COPY --from=page", "COPY --from=pages", "from pages, which is no earlier stage"},
		{"COPY web ./", "COPY --link web ./", "COPY --link"},
		{"COPY web ./", "ADD web ./", "ADD; COPY"},
		{"RUN npm run build", "RUN <<END\nnpm run build\nEND", "here-document"},
		{"install --yes --no-install-recommends ca-certificates", "install --yes ca-certificates", "without --no-install-recommends"},
		{`image.revision="$REVISION"`, `image.revision="main"`, `the label revision is "main"`},
		{`      org.opencontainers.image.licenses="Apache-2.0" \` + "\n", "", "no label org.opencontainers.image.licenses"},
		{"EXPOSE 9091/tcp", "EXPOSE 9091/TCP", "ExposeProtoCasing"},
	} {
		if !strings.Contains(text, c.old) {
			t.Errorf("%q is not in the Dockerfile", c.old)
			continue
		}
		planted := strings.Replace(text, c.old, c.planted, 1)
		found := append(lint(t, planted), reviewDockerfile(t, planted)...)
		if !slices.ContainsFunc(found, func(m string) bool { return strings.Contains(m, c.want) }) {
			t.Errorf("%q in place of %q: want %q among %q", c.planted, c.old, c.want, found)
		}
	}
}

// Whoever copies the directive away from the first line turns it off.
func TestDockerfileChecksItself(t *testing.T) {
	t.Parallel()
	if _, value, _, ok := parser.ParseDirective("check", bytes.TrimSpace([]byte(read(t, "Dockerfile")))); !ok || value != "error=true" {
		t.Errorf("the directive check is %q, want error=true, with which docker build fails where the linter warns", value)
	}
}
