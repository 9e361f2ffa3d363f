// Package chart_test checks the Helm chart deploy/helm/tramo: what Helm 3 and Helm 4 render of it, with Kubernetes' own
// validation, and that it agrees with the programs, their settings and their metrics. It is a Go module of its own.
package chart_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	helm3loader "helm.sh/helm/v3/pkg/chart/loader"
	helm3values "helm.sh/helm/v3/pkg/chartutil"
	helm3engine "helm.sh/helm/v3/pkg/engine"
	helm4common "helm.sh/helm/v4/pkg/chart/common"
	helm4values "helm.sh/helm/v4/pkg/chart/common/util"
	helm4loader "helm.sh/helm/v4/pkg/chart/v2/loader"
	helm4engine "helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	root      = "../../.." // of the repository
	chartDir  = root + "/deploy/helm/tramo"
	namespace = "uploads"
)

var update = flag.Bool("update", false, "write the files that are generated from the chart")

// values are of a chart.
type values = map[string]any

// parse reads values, or another YAML document.
func parse(t testing.TB, text string) values {
	t.Helper()
	v := values{}
	must(t, yaml.Unmarshal([]byte(text), &v))
	return v
}

// merge returns over, with what only under has.
func merge(under, over values) values {
	merged := maps.Clone(under)
	for k, v := range over {
		below, both := merged[k].(values)
		above, ok := v.(values)
		if both && ok {
			v = merge(below, above)
		}
		merged[k] = v
	}
	return merged
}

// render3 returns what Helm 3 renders, by file. It checks the values by their schema.
func render3(v values) (map[string]string, error) {
	chart, err := helm3loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	all, err := helm3values.ToRenderValues(chart, v, helm3values.ReleaseOptions{Name: "tramo", Namespace: namespace, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	return helm3engine.Render(chart, all)
}

// render4 is render3 with Helm 4.
func render4(v values) (map[string]string, error) {
	chart, err := helm4loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	all, err := helm4values.ToRenderValues(chart, v, helm4common.ReleaseOptions{Name: "tramo", Namespace: namespace, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	return helm4engine.Render(chart, all)
}

// render returns the documents that both Helms render of these values, in the order of their files, and the notes.
func render(t testing.TB, v values) (documents []string, notes string) {
	t.Helper()
	three, err := render3(v)
	must(t, err)
	four, err := render4(v)
	must(t, err)
	if !maps.Equal(three, four) {
		t.Fatalf("Helm 3 and Helm 4 render different objects of %v", v)
	}
	for _, name := range slices.Sorted(maps.Keys(three)) {
		if strings.HasSuffix(name, "NOTES.txt") {
			notes = three[name]
			continue
		}
		documents = append(documents, split(three[name])...)
	}
	return documents, notes
}

var separator = regexp.MustCompile(`(?m)^---\s*$`)

// split returns the documents of a YAML file that are not empty.
func split(text string) (documents []string) {
	for _, d := range separator.Split(text, -1) {
		var content any
		if err := yaml.Unmarshal([]byte(d), &content); err != nil || content != nil {
			documents = append(documents, strings.Trim(d, "\n")+"\n")
		}
	}
	return documents
}

// generated compares a file of the repository with what it should be, or writes it.
func generated(t *testing.T, path, want string) {
	t.Helper()
	path = filepath.Join(root, path)
	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, []byte(want)) {
		t.Errorf("%s is not what the chart makes: run make chart (%v)", path, err)
	}
}

// read returns a file of the repository.
func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	must(t, err)
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// at returns what is at a path of a document, such as spec.template.spec; nil if there is nothing.
func at(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		m, _ := v.(values)
		v = m[key]
	}
	return v
}

// list is at, for a list of objects.
func list(v any, path string) (objects []values) {
	elements, _ := at(v, path).([]any)
	for _, e := range elements {
		if m, ok := e.(values); ok {
			objects = append(objects, m)
		}
	}
	return objects
}

// text is at, as text.
func text(v any, path string) string {
	if found := at(v, path); found != nil {
		return fmt.Sprint(found)
	}
	return ""
}
