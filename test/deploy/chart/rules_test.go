package chart_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

var metricRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\|")

// metrics are those of docs/reference/metrics.md, which is generated from the code, with their labels.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, m := range metricRow.FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		name, labels := m[1], strings.FieldsFunc(m[3], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		all[name] = labels
		if m[2] == "histogram" {
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				all[name+suffix] = append(slices.Clone(labels), "le")
			}
		}
	}
	if len(all) == 0 {
		t.Fatal("metrics.md has another form than is read here")
	}
	return all
}

// added are the labels that Prometheus adds to each series.
var added = []string{"job", "instance", "namespace", "pod", "service", "container", "endpoint", "__name__"}

// Each alert asks for metrics and labels that exist, and says how bad and what it is.
func TestRulesAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := metrics(t)
	known["up"] = nil // Prometheus' own
	files, err := filepath.Glob(filepath.Join(chartDir, "files/rules/*.yaml"))
	must(t, err)
	seen := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(t, err)
		var rules values
		must(t, yaml.UnmarshalStrict(content, &rules))
		for _, group := range list(rules, "groups") {
			for _, rule := range list(group, "rules") {
				name := text(rule, "alert") + text(rule, "record")
				seen++
				if text(rule, "alert") != "" && (text(rule, "labels.severity") == "" || text(rule, "annotations.summary") == "") {
					t.Errorf("%s: it has no severity or no summary", name)
				}
				expression, err := parser.NewParser(parser.Options{}).ParseExpr(text(rule, "expr"))
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				for _, wrong := range unknown(expression, known) {
					t.Errorf("%s: %s", name, wrong)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("there are no rules")
	}
}

// unknown returns what an expression asks for and no program has.
func unknown(expression parser.Expr, known map[string][]string) (wrong []string) {
	var labels []string // of all its metrics
	parser.Inspect(expression, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		of, ok := known[s.Name]
		if !ok {
			wrong = append(wrong, "no program has the metric "+s.Name)
		}
		labels = append(labels, of...)
		for _, m := range s.LabelMatchers {
			if !slices.Contains(of, m.Name) && !slices.Contains(added, m.Name) {
				wrong = append(wrong, s.Name+" has no label "+m.Name)
			}
		}
		return nil
	})
	parser.Inspect(expression, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, label := range a.Grouping {
				if !slices.Contains(labels, label) && !slices.Contains(added, label) {
					wrong = append(wrong, "no metric here has the label "+label)
				}
			}
		}
		return nil
	})
	return wrong
}

// A rule that could never fire is found.
func TestMistakesInRulesAreFound(t *testing.T) {
	t.Parallel()
	known := metrics(t)
	for expression, finding := range map[string]string{
		`tramo_clamd_down == 0`:                                                       "no program has the metric tramo_clamd_down",
		`tramo_jobs{status="available"} > 1`:                                          "tramo_jobs has no label status",
		`sum by (kind) (tramo_dead_letters) > 0`:                                      "no metric here has the label kind",
		`rate(tramo_http_request_duration_seconds[5m]) > 1 or tramo_lease_wait_total`: "no program has the metric tramo_lease_wait_total",
	} {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
		must(t, err)
		if wrong := unknown(parsed, known); !slices.Contains(wrong, finding) {
			t.Errorf("%s: found %q, want %q", expression, wrong, finding)
		}
	}
}
