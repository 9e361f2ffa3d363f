package deploy

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// settings are the variables that Tramo's programs read, each with the commands that do, as docs/reference/settings.md has
// them. A secret is there with the suffix _FILE, too.
type settings struct {
	commands map[string][]string
	secrets  []string
}

func readSettings(t *testing.T) settings {
	t.Helper()
	page := read(t, "docs/reference/settings.md")
	s := settings{commands: make(map[string][]string)}
	list := regexp.MustCompile(`(?s)and so on for (.*?)\.\n`).FindStringSubmatch(page)
	if list == nil {
		t.Fatal("settings.md does not list the secrets")
	}
	for _, m := range regexp.MustCompile("`(TRAMO_[A-Z0-9_]+)`").FindAllStringSubmatch(list[1], -1) {
		s.secrets = append(s.secrets, m[1])
	}
	usage := regexp.MustCompile(`(?m)^\*(tramo[^*]*)\*$`)
	for _, section := range strings.Split(page, "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		for _, m := range usage.FindAllStringSubmatch(text, -1) {
			for part := range strings.SplitSeq(regexp.MustCompile("`[^`]*`").ReplaceAllString(m[1], ""), ";") {
				for command := range strings.SplitSeq(strings.TrimRight(part, ": "), ",") {
					s.commands[name] = append(s.commands[name], strings.TrimSpace(command))
				}
			}
		}
		if slices.Contains(s.secrets, name) {
			s.commands[name+"_FILE"] = s.commands[name]
		}
	}
	if len(s.secrets) < 5 || len(s.commands) < 50 || !slices.Equal(s.commands["TRAMO_WORKERS"], []string{"tramo-worker"}) {
		t.Fatalf("settings.md was not understood: %d secrets, %d settings, TRAMO_WORKERS in %q", len(s.secrets), len(s.commands), s.commands["TRAMO_WORKERS"])
	}
	return s
}

// unknownMetrics returns the metrics of Tramo that a text names and docs/reference/metrics.md does not have.
func unknownMetrics(t *testing.T, text string) (found []string) {
	t.Helper()
	known := make(map[string]string) // by name, its type
	for _, m := range regexp.MustCompile("(?m)^\\| `(tramo_\\w+)` \\| (\\w+) ").FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		known[m[1]] = m[2]
	}
	if len(known) < 20 {
		t.Fatal("metrics.md was not understood")
	}
	for _, name := range regexp.MustCompile(`\btramo_[a-z0-9_]+`).FindAllString(text, -1) {
		series := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if known[name] == "" && known[series] != "histogram" || known[name] == "histogram" {
			found = append(found, name)
		}
	}
	return found
}
