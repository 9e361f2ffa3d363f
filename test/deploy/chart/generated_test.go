package chart_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// deploy/helm/tramo/README.md has each value of values.yaml that has a comment "# --", with its default.
func TestReadme(t *testing.T) {
	t.Parallel()
	var file yaml.Node
	must(t, yaml.Unmarshal([]byte(read(t, "deploy/helm/tramo/values.yaml")), &file))
	var b strings.Builder
	b.WriteString(`# tramo

<!-- Written by make chart, from values.yaml. -->

The Helm chart of Tramo, for Kubernetes 1.30 or later and Helm 3 or 4.
[Deploy on Kubernetes](../../../docs/how-to/deploy-on-kubernetes.md) has the way from an empty namespace to a first
upload.

| value | default | |
|---|---|---|
`)
	rows(t, &b, "", file.Content[0])
	generated(t, "deploy/helm/tramo/README.md", b.String())
}

// rows writes the values below a path. A value with a comment is one row, with all that is in it, unless that has comments too.
func rows(t *testing.T, b *strings.Builder, path string, m *yaml.Node) {
	t.Helper()
	for i := 0; i < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		name := strings.TrimPrefix(path+"."+key.Value, ".")
		said := key.HeadComment
		if j := strings.Index(said, "# -- "); j >= 0 {
			said = said[j+len("# -- "):]
		} else if said = ""; value.Kind == yaml.MappingNode && len(value.Content) > 0 {
			rows(t, b, name, value)
			continue
		}
		said = strings.Join(strings.Fields(strings.ReplaceAll(said, "\n#", " ")), " ")
		var content any
		must(t, value.Decode(&content))
		text, err := json.Marshal(content)
		must(t, err)
		fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", name, text, strings.ReplaceAll(said, "|", "\\|"))
	}
}

// deploy/kubernetes/tramo.yaml is the chart for those who use kustomize, or plain files.
func TestManifest(t *testing.T) {
	t.Parallel()
	documents, _ := render(t, parse(t, read(t, "deploy/kubernetes/values.yaml")))
	var b strings.Builder
	b.WriteString(`# Tramo as plain manifests, for kubectl and kustomize. Written by make chart, from deploy/helm/tramo with the values
# beside this file. docs/how-to/deploy-on-kubernetes.md has what to change.
`)
	for _, d := range documents {
		must(t, validate(d))
		fmt.Fprintf(&b, "---\n%s", plain(d))
	}
	must(t, agree(documents))
	generated(t, "deploy/kubernetes/tramo.yaml", b.String())
}

// plain removes what only Helm reads, and the namespace, which kustomize sets.
func plain(document string) string {
	lines := slices.Collect(strings.Lines(document))
	lines = slices.DeleteFunc(lines, func(line string) bool {
		line = strings.TrimSpace(line)
		return strings.HasPrefix(line, "helm.sh/") || strings.HasPrefix(line, "app.kubernetes.io/managed-by:") || line == "namespace: "+namespace ||
			strings.HasPrefix(line, "# Source:")
	})
	// Annotations of which nothing is left.
	for i := 0; i < len(lines); i++ {
		if strings.TrimSpace(lines[i]) != "annotations:" {
			continue
		}
		next := i + 1
		for next < len(lines) && strings.HasPrefix(strings.TrimSpace(lines[next]), "#") {
			next++
		}
		if next == len(lines) || indent(lines[next]) <= indent(lines[i]) {
			lines = slices.Delete(lines, i, next)
			i--
		}
	}
	return strings.Join(lines, "")
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// The values in the how-to page are complete, and a cluster accepts what they make.
func TestValuesOfTheHowTo(t *testing.T) {
	t.Parallel()
	_, rest, found := strings.Cut(read(t, "docs/how-to/deploy-on-kubernetes.md"), "```yaml\n")
	block, _, _ := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the page has no values")
	}
	documents, _ := render(t, parse(t, block))
	for _, d := range documents {
		must(t, validate(d))
	}
	must(t, agree(documents))
}

// The chart installs the release that it is part of, and kustomize finds the same.
func TestVersion(t *testing.T) {
	t.Parallel()
	chart := parse(t, read(t, "deploy/helm/tramo/Chart.yaml"))
	if version := text(chart, "appVersion"); !strings.Contains(read(t, "telemetry/version.go"), `const Version = "`+version+`"`) {
		t.Errorf("the chart installs %s, which telemetry/version.go does not say", version)
	}
	if files := fmt.Sprint(at(parse(t, read(t, "deploy/kubernetes/kustomization.yaml")), "resources")); files != "[tramo.yaml]" {
		t.Errorf("kustomize finds %s", files)
	}
}
