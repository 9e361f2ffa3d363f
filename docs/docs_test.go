package docs_test

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// root is the repository's. Tests run in the directory of their package.
const root = ".."

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)|(?:src|href)="([^"]+)"`)
	heading = regexp.MustCompile(`^#{1,6} +(.*?)(?: +#+)?$`)
	anchor  = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	inline  = regexp.MustCompile("`[^`]*`")
	linked  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

	testNamed    = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	testDefined  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	pageNamed    = regexp.MustCompile(`(?:^|[^/\w])(docs/[\w/-]+\.md)`)
	settingNamed = regexp.MustCompile(`\bTRAMO_[A-Z0-9_]*[A-Z0-9]\b`)
	metricNamed  = regexp.MustCompile("`(tramo_\\w+)")
	fileNamed    = regexp.MustCompile("`([a-z][\\w./-]*/[\\w.-]*)`")
)

// walk calls visit with each file of the repository, relative to root.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && ignored(e.Name()):
			return filepath.SkipDir
		case !e.IsDir():
			visit(strings.TrimPrefix(filepath.ToSlash(path), root+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pages returns the repository's Markdown files.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	walk(t, func(path string) {
		if filepath.Ext(path) == ".md" {
			found = append(found, path)
		}
	})
	if !slices.Contains(found, "README.md") || !slices.Contains(found, "docs/README.md") {
		t.Fatalf("found only %q", found)
	}
	return found
}

// ignored names directories that are not in the repository, or whose pages are others'.
func ignored(name string) bool {
	return slices.Contains([]string{".git", ".tramo", "bin", "dist", "node_modules", "testdata"}, name)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// prose returns the lines of a page with those of fenced code blocks emptied, so that numbers of lines stay.
func prose(page string) []string {
	lines := strings.Split(page, "\n")
	fenced := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence || fenced {
			lines[i] = ""
		}
		fenced = fenced != fence
	}
	return lines
}

// anchors returns the fragments that GitHub gives to the headings of a page.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, line := range prose(page) {
		for _, m := range anchor.FindAllStringSubmatch(line, -1) {
			found[m[1]] = true
		}
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		text := strings.ToLower(strings.ReplaceAll(linked.ReplaceAllString(m[1], "$1"), "`", ""))
		found[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return r
			}
			return -1
		}, text)] = true
	}
	return found
}

// Every relative link of every page leads to a file, and every fragment to a heading of it.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		for i, line := range prose(read(t, page)) {
			for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(line, ""), -1) {
				to, err := url.Parse(m[1] + m[2])
				if err != nil {
					t.Errorf("%s:%d: %v", page, i+1, err)
					continue
				}
				if to.Scheme != "" || to.Host != "" {
					continue
				}
				target := page
				if to.Path != "" {
					target = filepath.ToSlash(filepath.Join(filepath.Dir(page), to.Path))
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s:%d links to %s, which does not exist", page, i+1, target)
					continue
				}
				if to.Fragment != "" && !anchors(read(t, target))[to.Fragment] {
					t.Errorf("%s:%d links to %s#%s, and %s has no such heading", page, i+1, target, to.Fragment, target)
				}
			}
		}
	}
}

// docs/README.md links to every other page below docs, so that each can be found.
func TestIndexNamesEveryPage(t *testing.T) {
	t.Parallel()
	const index = "docs/README.md"
	named := map[string]bool{index: true}
	for _, line := range prose(read(t, index)) {
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			path, _, _ := strings.Cut(m[1], "#")
			named[filepath.ToSlash(filepath.Join("docs", path))] = true
		}
	}
	for _, page := range pages(t) {
		if strings.HasPrefix(page, "docs/") && !named[page] {
			t.Errorf("%s does not link to %s", index, page)
		}
	}
}

// Every test that a page names exists.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	defined := map[string]bool{}
	walk(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range testDefined.FindAllStringSubmatch(read(t, path), -1) {
				defined[m[1]] = true
			}
		}
	})
	if len(defined) < 100 {
		t.Fatalf("found only %d tests", len(defined))
	}
	named := 0
	for _, page := range pages(t) {
		for i, line := range prose(read(t, page)) {
			for _, m := range testNamed.FindAllStringSubmatch(line, -1) {
				if named++; !defined[m[1]] {
					t.Errorf("%s:%d names %s, which does not exist", page, i+1, m[1])
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("the pages name only %d tests", named)
	}
}

// Every file and folder exists that the architecture, or a page for contributors, names.
func TestNamedFilesExist(t *testing.T) {
	t.Parallel()
	const architecture = "docs/explanation/architecture.md"
	for _, page := range pages(t) {
		if page != architecture && page != "CONTRIBUTING.md" && !strings.HasPrefix(page, "docs/how-to/add-") {
			continue
		}
		named := 0
		for i, line := range prose(read(t, page)) {
			for _, m := range fileNamed.FindAllStringSubmatch(line, -1) {
				named++
				if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
					t.Errorf("%s:%d names %s, which does not exist", page, i+1, m[1])
				}
			}
		}
		if page == architecture && named < 40 {
			t.Errorf("%s names only %d files", page, named)
		}
	}
}

// Every setting and every metric that a page names is in the reference, which is made from the code.
func TestNamedSettingsAndMetricsExist(t *testing.T) {
	t.Parallel()
	settings, metrics := read(t, "docs/reference/settings.md"), read(t, "docs/reference/metrics.md")
	named := 0
	for _, page := range pages(t) {
		for i, line := range strings.Split(read(t, page), "\n") {
			for _, name := range settingNamed.FindAllString(line, -1) {
				known := strings.Contains(settings, "\n## "+name+"\n") || name == "TRAMO_BIN" || name == "TRAMO_SECRET"
				secret, fromFile := strings.CutSuffix(name, "_FILE") // settings.md lists those that can come from one
				known = known || fromFile && strings.Contains(settings, "\n## "+secret+"\n")
				if named++; !known {
					t.Errorf("%s:%d names %s, which is no setting", page, i+1, name)
				}
			}
			for _, m := range metricNamed.FindAllStringSubmatch(line, -1) {
				role := slices.Contains([]string{"tramo_api", "tramo_worker", "tramo_owner"}, m[1])
				if named++; !role && !strings.Contains(metrics, "| `"+m[1]) {
					t.Errorf("%s:%d names %s, which is no metric", page, i+1, m[1])
				}
			}
		}
	}
	if named < 200 {
		t.Errorf("the pages name only %d settings and metrics", named)
	}
}

// The changelog has a section for the release that telemetry names, and one for what comes after it.
func TestChangelogNamesTheRelease(t *testing.T) {
	t.Parallel()
	version := regexp.MustCompile(`const Version = "([^"]+)"`).FindStringSubmatch(read(t, "telemetry/version.go"))
	if version == nil {
		t.Fatal("telemetry/version.go has no version")
	}
	changes := read(t, "CHANGELOG.md")
	for _, section := range []string{"\n## [Unreleased]\n", "\n## [" + version[1] + "] - "} {
		if !strings.Contains(changes, section) {
			t.Errorf("CHANGELOG.md has no section %q", section)
		}
	}
}

// The architecture names every package of the floors below cmd.
func TestArchitectureNamesPackages(t *testing.T) {
	t.Parallel()
	text := read(t, "docs/explanation/architecture.md")
	seen := map[string]bool{}
	walk(t, func(file string) {
		pkg := path.Dir(file)
		if top, _, _ := strings.Cut(pkg, "/"); seen[pkg] || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") ||
			!slices.Contains([]string{"server", "hooks", "processing", "storage", "tenant", "telemetry"}, top) {
			return
		}
		if seen[pkg] = true; !strings.Contains(text, "`"+pkg+"`") {
			t.Errorf("docs/explanation/architecture.md does not name package %s", pkg)
		}
	})
	if len(seen) < 15 {
		t.Fatalf("found only packages %v", seen)
	}
}

// Every page exists that a source names, such as a comment or the description of the API.
func TestSourcesNamePages(t *testing.T) {
	t.Parallel()
	named := 0
	walk(t, func(path string) {
		if !slices.Contains([]string{".go", ".yaml", ".yml", ".sql", ".sh", ".ts", ".mjs", ".html", ".conf"}, filepath.Ext(path)) {
			return
		}
		for _, m := range pageNamed.FindAllStringSubmatch(read(t, path), -1) {
			named++
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	})
	if named < 20 {
		t.Errorf("the sources name only %d pages", named)
	}
}
