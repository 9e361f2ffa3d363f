// Package reference holds the pages of docs/reference that are generated from the code: settings.md, cli.md and metrics.md.
// make docs writes them; the tests fail when a page differs.
package reference

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/dev"
	"github.com/tramo/tramo/cmd/internal/tramo"
	"github.com/tramo/tramo/cmd/internal/worker"
	"github.com/tramo/tramo/telemetry"
)

var update = flag.Bool("update", false, "write the pages")

func programs() []cli.Program {
	return []cli.Program{tramo.Program(), worker.Program(), dev.Program()}
}

func model(t *testing.T, p cli.Program) *kong.Application {
	t.Helper()
	parser, err := cli.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// check compares a page with what the code says, or writes it.
func check(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join("../../../docs/reference", name)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s differs from the code: run make docs (%v)", path, err)
	}
}

// commands returns what a person can run: a program, or its commands, by what they type.
func commands(app *kong.Application, program string) (names []string, nodes map[string]*kong.Node) {
	nodes = make(map[string]*kong.Node)
	if app.Leaf() {
		return []string{program}, map[string]*kong.Node{program: app.Node}
	}
	for _, n := range app.Leaves(true) {
		name := program + " " + strings.Join(path(n), " ")
		if n == app.DefaultCmd {
			name = program
		}
		names, nodes[name] = append(names, name), n
	}
	return names, nodes
}

// isSecret reports whether a setting can come from a file.
func isSecret(f *kong.Flag) bool { return f.Target.Type() == reflect.TypeFor[telemetry.Secret]() }

func path(n *kong.Node) []string {
	if n.Parent == nil {
		return nil
	}
	return append(path(n.Parent), n.Name)
}

// flags are a command's own, without --help and --version.
func flags(n *kong.Node) []*kong.Flag {
	return slices.DeleteFunc(slices.Clone(n.Flags), func(f *kong.Flag) bool { return f.Name == "help" || f.Name == "version" })
}

// A use is what a setting does in some commands, and its defaults there.
type use struct {
	help     string
	defaults []string // as written
	commands [][]string
}

// add notes that a command has the setting, with this help and default.
func add(uses []*use, help, def, command string) []*use {
	i := slices.IndexFunc(uses, func(u *use) bool { return u.help == help })
	if i < 0 {
		uses, i = append(uses, &use{help: help}), len(uses)
	}
	u := uses[i]
	n := slices.Index(u.defaults, def)
	if n < 0 {
		u.defaults, u.commands, n = append(u.defaults, def), append(u.commands, nil), len(u.defaults)
	}
	u.commands[n] = append(u.commands[n], command)
	return uses
}

// where names the commands of a use, with their defaults.
func (u *use) where() string {
	var parts []string
	for i, def := range u.defaults {
		part := strings.Join(u.commands[i], ", ")
		if def != "" {
			part += ": `" + def + "`"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

// Every setting has one name, which makes its flag and its variable, in all programs.
func TestSettings(t *testing.T) {
	t.Parallel()
	uses := make(map[string][]*use) // by variable
	secrets := make(map[string]bool)
	for _, p := range programs() {
		names, nodes := commands(model(t, p), p.Name)
		for _, name := range names {
			for _, f := range flags(nodes[name]) {
				if f.Envs == nil {
					continue
				}
				variable := f.Envs[0]
				if want := "TRAMO_" + strings.ReplaceAll(strings.ToUpper(f.Name), "-", "_"); len(f.Envs) != 1 || variable != want {
					t.Errorf("%s: the variables of --%s are %q, want %s", name, f.Name, f.Envs, want)
				}
				if f.Tag.Name != f.Name {
					t.Errorf("%s: --%s is named after a Go field; give it a tag", name, f.Name)
				}
				if f.Help == "" || !strings.HasSuffix(f.Help, ".") {
					t.Errorf("%s: the help of --%s is no sentence: %q", name, f.Name, f.Help)
				}
				if isSecret(f) {
					secrets["`"+variable+"`"] = true
				}
				uses[variable] = add(uses[variable], f.Help, f.Default, name)
			}
		}
	}
	var page strings.Builder
	page.WriteString(`# Settings

<!-- Written by make docs, from the code. -->

A setting is a variable of the environment or a flag, which goes before the variable. The flag of ` + "`TRAMO_PART_SIZE`" + ` is
` + "`--part-size`" + `, and so on. Sizes are written ` + "`100MiB`, `8MB` or `5242880`" + `; durations ` + "`50ms`, `90s` or `1h30m`" + `; lists with commas. A program
reports all mistakes in its settings at once, and does not start. Below each setting stand the commands that have it, with
its default there.

Every secret can come from a file, such as one that Kubernetes or Docker mounts: ` + "`TRAMO_JWT_SECRET_FILE`" + ` names the file
with the value of ` + "`TRAMO_JWT_SECRET`" + `, and so on for ` + strings.Join(slices.Sorted(maps.Keys(secrets)), ", ") + `.
A line break at its end does not count.

A program warns at its start of a URL that leads to another machine in plain text: ` + "`http://`, `redis://`, `tcp://`" + `, or a
database without TLS.

Credentials and the region of S3 come from the [variables and files of the AWS SDK](https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html).

`)
	for _, variable := range slices.Sorted(maps.Keys(uses)) {
		fmt.Fprintf(&page, "## %s\n\n", variable)
		for _, u := range uses[variable] {
			fmt.Fprintf(&page, "%s\n\n*%s*\n\n", u.help, u.where())
		}
	}
	check(t, "settings.md", strings.TrimRight(page.String(), "\n")+"\n")
}

// Code, tests and docs name no variable that is not a setting.
func TestVariablesAreSettings(t *testing.T) {
	t.Parallel()
	settings := make(map[string]bool)
	for _, p := range programs() {
		_, nodes := commands(model(t, p), p.Name)
		for _, n := range nodes {
			for _, f := range flags(n) {
				for _, variable := range f.Envs {
					settings[variable] = true
					settings[variable+"_FILE"] = settings[variable+"_FILE"] || isSecret(f)
				}
			}
		}
	}
	named := regexp.MustCompile(`\bTRAMO_[A-Z0-9_]+`)
	other := regexp.MustCompile(`_$|^TRAMO_(CONFINED|SECRET|BIN|TEST_.+|(CHAOS|KILL)_SEEDS?)$`) // a prefix, the mark of a child, an example, tests' own
	root := "../../.."
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains([]string{".git", ".tramo", "bin", "node_modules", "dist", "decisions", "cli"}, e.Name()):
			return filepath.SkipDir
		case !slices.Contains([]string{".go", ".md", ".conf", ".yaml", ".sh", ""}, filepath.Ext(path)) || e.IsDir():
			return nil
		}
		text, err := os.ReadFile(path)
		for _, variable := range named.FindAllString(string(text), -1) {
			if !settings[variable] && !other.MatchString(variable) {
				t.Errorf("%s: %s is no setting", strings.TrimPrefix(path, root+"/"), variable)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	var page strings.Builder
	page.WriteString(`# Command line

<!-- Written by make docs, from the code. -->

Every command takes ` + "`--help`" + `, every program ` + "`--version`" + `. A command's [settings](settings.md) are flags or variables of the
environment; its options are flags only.

`)
	for _, p := range programs() {
		app := model(t, p)
		names, nodes := commands(app, p.Name)
		if !app.Leaf() {
			fmt.Fprintf(&page, "## %s\n\n%s\n\n", p.Name, app.Help)
		}
		for _, name := range names {
			n := nodes[name]
			heading := "###"
			if app.Leaf() {
				heading = "##"
			}
			var settings, options []string
			usage := name
			for _, f := range flags(n) {
				if f.Envs != nil {
					settings = append(settings, fmt.Sprintf("[`--%s`](settings.md#%s)", f.Name, strings.ToLower(f.Envs[0])))
					continue
				}
				if f.Help == "" {
					t.Errorf("%s: --%s has no help", name, f.Name)
				}
				if f.Required {
					usage += " " + f.Summary()
				}
				options = append(options, fmt.Sprintf("| `%s` | %s |", f.String(), f.Help))
			}
			usage += " [flags]"
			for _, a := range n.Positional {
				usage += " " + a.Summary()
				options = append(options, fmt.Sprintf("| `%s` | %s |", a.Summary(), a.Help))
			}
			fmt.Fprintf(&page, "%s %s\n\n%s\n\n    %s\n\n", heading, name, n.Help, usage)
			slices.Sort(settings)
			if options != nil {
				fmt.Fprintf(&page, "| option | |\n|---|---|\n%s\n\n", strings.Join(options, "\n"))
			}
			if settings != nil {
				fmt.Fprintf(&page, "Settings: %s.\n\n", strings.Join(settings, ", "))
			}
		}
	}
	check(t, "cli.md", strings.TrimRight(page.String(), "\n")+"\n")
}

// A recorder is a registry that remembers what it is given.
type recorder struct {
	*prometheus.Registry
	given []prometheus.Collector
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.given = append(r.given, c)
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// A metric as its page shows it.
type metric struct{ name, kind, labels, help string }

var described = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)", unit: "[^"]*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// metrics describes what c collects.
func metrics(t *testing.T, c prometheus.Collector) (found []metric) {
	t.Helper()
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		parts := described.FindStringSubmatch(d.String())
		if parts == nil {
			t.Fatalf("%s is not as expected", d)
		}
		m := metric{name: parts[1], help: strings.ReplaceAll(parts[2], `\"`, `"`), kind: kind(c, parts[1])}
		labels := regexp.MustCompile(`\w+(="[^"]*")?`).FindAllString(parts[3]+","+parts[4], -1)
		for i, l := range labels {
			name, _, _ := strings.Cut(l, "=")
			labels[i] = "`" + name + "`"
		}
		m.labels = strings.Join(labels, ", ")
		found = append(found, m)
	}
	return found
}

// kind is the type of a metric. Collectors of our own do not tell without what they measure; for them the name decides, as
// Prometheus advises (prometheus.io/docs/practices/naming).
func kind(c prometheus.Collector, name string) string {
	switch c := c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	case prometheus.Metric:
		var m dto.Metric
		if c.Write(&m) == nil {
			switch {
			case m.Counter != nil:
				return "counter"
			case m.Histogram != nil:
				return "histogram"
			}
		}
		return "gauge"
	}
	if strings.HasSuffix(name, "_total") {
		return "counter"
	}
	return "gauge"
}

// Every metric has a name of ours and a help.
func TestMetrics(t *testing.T) {
	t.Parallel()
	var page strings.Builder
	page.WriteString(`# Metrics

<!-- Written by make docs, from the code. -->

Server and worker answer Prometheus at ` + "`/metrics`" + ` on [` + "`TRAMO_OPS_LISTEN`" + `](settings.md#tramo_ops_listen). Both also have the metrics of the Go
runtime and of the process (` + "`go_*`, `process_*`" + `).

`)
	for _, p := range programs() {
		if p.Metrics == nil {
			continue
		}
		r := &recorder{Registry: prometheus.NewRegistry()}
		if err := p.Metrics(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		var all []metric
		for _, c := range append(r.given, telemetry.NewRegistry()) {
			all = append(all, metrics(t, c)...)
		}
		all = slices.DeleteFunc(all, func(m metric) bool { return strings.HasPrefix(m.name, "go_") || strings.HasPrefix(m.name, "process_") })
		slices.SortFunc(all, func(a, b metric) int { return cmp.Compare(a.name, b.name) })
		title := p.Name
		if p.Name == "tramo" {
			title = "tramo serve"
		}
		fmt.Fprintf(&page, "## %s\n\n| metric | type | labels | |\n|---|---|---|---|\n", title)
		for _, m := range all {
			if !strings.HasPrefix(m.name, "tramo_") || !strings.HasSuffix(m.help, ".") {
				t.Errorf("%s %s: %q is no name of ours, or its help no sentence", title, m.name, m.help)
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, m.help)
		}
		page.WriteString("\n")
	}
	check(t, "metrics.md", strings.TrimRight(page.String(), "\n")+"\n")
}
