package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"go.yaml.in/yaml/v3"
)

// A review of a compose project collects what is wrong with it.
type review struct {
	t        *testing.T
	dir      string // of deploy/
	project  *types.Project
	settings settings
	ports    map[string][]string // by service, where it listens
	found    []string
}

func reviewCompose(t *testing.T, dir string) []string {
	t.Helper()
	project, err := load(t.Context(), dir)
	if err != nil {
		return []string{err.Error()}
	}
	r := &review{t: t, dir: dir, project: project, settings: readSettings(t)}
	r.ports = r.listening()
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		s := project.Services[name]
		r.image(s)
		r.health(s)
		r.mounts(s)
		r.environment(s)
		r.secrets(s)
		r.addresses(s)
		r.published(s)
	}
	r.unused()
	r.dotEnv()
	r.prometheus()
	r.collector()
	r.grafana()
	return r.found
}

func (r *review) complain(format string, args ...any) {
	r.found = append(r.found, fmt.Sprintf(format, args...))
}

func (r *review) text(path string) string {
	text, err := os.ReadFile(filepath.Join(r.dir, path))
	if err != nil {
		r.complain("%v", err)
	}
	return string(text)
}

// target is the target of the Dockerfile that a service runs; "" for others' images.
func target(s types.ServiceConfig) string {
	switch name, _, _ := strings.Cut(path.Base(s.Image), ":"); name {
	case "tramo":
		return "server"
	case "tramo-worker":
		return "worker"
	}
	return ""
}

// runs reports whether a service of ours runs one of these commands, as docs/reference/settings.md names them.
func runs(s types.ServiceConfig, commands []string) bool {
	switch {
	case target(s) == "worker":
		return slices.Contains(commands, "tramo-worker")
	case len(s.Command) == 0:
		return slices.Contains(commands, "tramo serve")
	case s.Command[0] == "--help": // the operator names one
		return slices.ContainsFunc(commands, func(c string) bool { return strings.HasPrefix(c, "tramo ") })
	}
	return slices.Contains(commands, "tramo "+s.Command[0])
}

// listening returns where services listen: ours by the Dockerfile, others by what their images document or compose.yaml says.
func (r *review) listening() map[string][]string {
	ports := map[string][]string{"postgres": {"5432"}, "clamav": {"3310"}, "prometheus": {"9090"}, "grafana": {"3000"}, "jaeger": {"4317", "4318", "16686"}}
	ports["otel-collector"] = append(portsIn(r.text("compose/otel-collector.yaml"), `0\.0\.0\.0:(\d+)`), portsIn(r.text("compose/otel-collector.yaml"), `port: (\d+)`)...)
	ports["s3"] = portsIn(strings.Join(r.project.Services["s3"].Command, " "), `--port :(\d+)`)
	parsed, err := parser.Parse(strings.NewReader(read(r.t, "Dockerfile")))
	if err != nil {
		r.t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, stage := range stages {
		for _, c := range stage.Commands {
			if c, ok := c.(*instructions.ExposeCommand); ok {
				for _, port := range c.Ports {
					ports[stage.Name] = append(ports[stage.Name], strings.TrimSuffix(port, "/tcp"))
				}
			}
		}
	}
	return ports
}

func portsIn(text, pattern string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func (r *review) image(s types.ServiceConfig) {
	if target(s) != "" {
		version := regexp.MustCompile(`(?m)^const Version = "(.*)"$`).FindStringSubmatch(read(r.t, "telemetry/version.go"))
		if _, tag, _ := strings.Cut(s.Image, ":"); tag != version[1] {
			r.complain("%s: the image is %s, want the version of this release, %s", s.Name, s.Image, version[1])
		}
		if !s.ReadOnly {
			r.complain("%s: its root is writable", s.Name)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) {
			r.complain("%s: has capabilities", s.Name)
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			r.complain("%s: may gain privileges", s.Name)
		}
		return
	}
	if !regexp.MustCompile(`:v?\d+\.\d+(\.\d+)?([_-]\w+)?$`).MatchString(s.Image) {
		r.complain("%s: the image %s has no version", s.Name, s.Image)
	}
	if !strings.HasPrefix(s.Image, "docker.io/") {
		r.complain("%s: the image %s names no registry", s.Name, s.Image)
	}
}

func (r *review) health(s types.ServiceConfig) {
	switch h := s.HealthCheck; {
	case h != nil && h.Disable:
		block := regexp.MustCompile(`(?ms)^  ` + s.Name + `:$.*?(?:^  \w|\z)`).FindString(r.text("compose/compose.yaml"))
		if !regexp.MustCompile(`healthcheck: \{disable: true\} # \w+`).MatchString(block) {
			r.complain("%s: no health check, and no reason", s.Name)
		}
	case h == nil || len(h.Test) < 2 || h.Test[0] != "CMD" || h.Interval == nil || h.Timeout == nil:
		r.complain("%s: no health check", s.Name)
	case target(s) != "":
		if want := map[string]string{"server": "/usr/bin/tramo", "worker": "/usr/bin/tramo-worker"}[target(s)]; h.Test[1] != want || h.Test[2] != "healthcheck" {
			r.complain("%s: its health check %q is not a command of the image", s.Name, h.Test[1:])
		}
	}
	for other, how := range s.DependsOn {
		h := r.project.Services[other].HealthCheck
		if how.Condition == types.ServiceConditionHealthy && (h == nil || h.Disable) {
			r.complain("%s: waits for %s to be healthy, which has no health check", s.Name, other)
		}
	}
}

func (r *review) mounts(s types.ServiceConfig) {
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		if _, err := os.Stat(v.Source); err != nil {
			r.complain("%s: mounts %s, which does not exist", s.Name, v.Source)
		}
		if !v.ReadOnly {
			r.complain("%s: may write into %s", s.Name, v.Source)
		}
	}
}

// mounted returns the files of this machine at a path of a service, which may be a pattern.
func mounted(s types.ServiceConfig, at string) (found []string) {
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		below, ok := strings.CutPrefix(at, v.Target)
		if matches, err := filepath.Glob(v.Source + below); ok && err == nil {
			found = append(found, matches...)
		}
	}
	return found
}

var secretName = regexp.MustCompile(`PASSWORD|SECRET|TOKEN|CREDENTIAL|(_|^)KEY`)

func (r *review) environment(s types.ServiceConfig) {
	for name, value := range s.Environment {
		if strings.HasPrefix(name, "TRAMO_") {
			if !runs(s, r.settings.commands[name]) {
				r.complain("%s: %s is no setting of its command", s.Name, name)
			}
		}
		inFile := strings.HasSuffix(name, "_FILE")
		if !inFile && (secretName.MatchString(name) || slices.Contains(r.settings.secrets, name)) {
			r.complain("%s: %s is a secret in the environment; give it as a file", s.Name, name)
		}
		if value != nil && inFile && !strings.HasPrefix(*value, "/run/secrets/") {
			r.complain("%s: %s is %s, want a file below /run/secrets", s.Name, name, *value)
		}
	}
}

// configuration is everything that a service reads: its environment, its command, mounted files, and its secrets.
func (r *review) configuration(s types.ServiceConfig, withSecrets bool) string {
	texts := slices.Concat([]string(s.Command), []string(s.Entrypoint))
	for _, value := range s.Environment {
		if value != nil {
			texts = append(texts, *value)
		}
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		_ = filepath.WalkDir(v.Source, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && filepath.Ext(path) != ".json" {
				text, readErr := os.ReadFile(path)
				texts, err = append(texts, string(text)), readErr
			}
			return err
		})
	}
	for _, secret := range s.Secrets {
		if withSecrets {
			text, _ := os.ReadFile(r.project.Secrets[secret.Source].File)
			texts = append(texts, string(text))
		}
	}
	return strings.Join(texts, "\n")
}

func (r *review) secrets(s types.ServiceConfig) {
	given := make(map[string]bool)
	for _, secret := range s.Secrets {
		given[secret.Source] = false
		file := r.project.Secrets[secret.Source].File
		if _, err := os.Stat(file); err != nil {
			r.complain("%s: the secret %s is %s, which secrets.sh does not make", s.Name, secret.Source, filepath.Base(file))
		}
	}
	for _, m := range regexp.MustCompile(`/run/secrets/(\w+)`).FindAllStringSubmatch(r.configuration(s, false), -1) {
		if _, ok := given[m[1]]; !ok {
			r.complain("%s: reads %s, which it is not given", s.Name, m[0])
		}
		given[m[1]] = true
	}
	for name, used := range given {
		if !used {
			r.complain("%s: is given the secret %s and does not use it", s.Name, name)
		}
	}
}

// addresses finds host:port of other services in what a service reads.
func (r *review) addresses(s types.ServiceConfig) {
	for _, m := range regexp.MustCompile(`(?:[/@ ]|^)([a-z][a-z0-9-]*):(\d{4,5})\b`).FindAllStringSubmatch(r.configuration(s, true), -1) {
		r.reaches(s, m[1], m[2])
	}
}

func (r *review) reaches(s types.ServiceConfig, host, port string) {
	other, err := r.project.GetService(host)
	switch {
	case err != nil:
		r.complain("%s: %s:%s: there is no service %s", s.Name, host, port, host)
	case !slices.Contains(r.ports[host], port):
		r.complain("%s: %s:%s: %s does not listen there", s.Name, host, port, host)
	case !slices.ContainsFunc(slices.Collect(maps.Keys(s.Networks)), func(n string) bool { _, ok := other.Networks[n]; return ok }):
		r.complain("%s: %s:%s: they share no network", s.Name, host, port)
	}
}

func (r *review) published(s types.ServiceConfig) {
	for _, p := range s.Ports {
		port := fmt.Sprint(p.Target)
		if !slices.Contains(r.ports[s.Name], port) {
			r.complain("%s: publishes %s, where it does not listen", s.Name, port)
		}
		if target(s) != "" && port != "8080" {
			r.complain("the operations of %s are published", s.Name)
		}
		if p.HostIP == "" {
			r.complain("%s: %s is published on every address", s.Name, port)
		}
	}
}

func (r *review) unused() {
	volumes, secrets := make(map[string]bool), make(map[string]bool)
	for _, s := range r.project.Services {
		for _, v := range s.Volumes {
			volumes[v.Source] = true
		}
		for _, secret := range s.Secrets {
			secrets[secret.Source] = true
		}
	}
	for name := range r.project.Volumes {
		if !volumes[name] {
			r.complain("the volume %s is used by nothing", name)
		}
	}
	for name := range r.project.Secrets {
		if !secrets[name] {
			r.complain("the secret %s is used by nothing", name)
		}
	}
}

// dotEnv compares the variables of compose.yaml with those that are explained in .env.
func (r *review) dotEnv() {
	text := r.text("compose/.env")
	values, err := dotenv.Parse(strings.NewReader(text))
	if err != nil {
		r.complain(".env.example: %v", err)
	}
	used := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\$\{(\w+)`).FindAllStringSubmatch(r.text("compose/compose.yaml"), -1) {
		used[m[1]] = true
		if _, ok := values[m[1]]; !ok {
			r.complain("%s is not explained in .env.example", m[1])
		}
	}
	for name := range values {
		switch {
		case strings.HasPrefix(name, "TRAMO_"):
			if r.settings.commands[name] == nil {
				r.complain(".env.example: %s is no setting", name)
			}
			if slices.Contains(r.settings.secrets, name) {
				r.complain(".env.example: %s is a secret", name)
			}
		case !used[name]:
			r.complain(".env.example: %s is used by nothing", name)
		}
	}
	for block := range strings.SplitSeq(text, "\n\n") {
		if name, _, ok := strings.Cut(block, "="); ok && !strings.HasPrefix(block, "#") {
			r.complain(".env.example: %s is not explained", name)
		}
	}
}

func (r *review) yaml(path string, into any) {
	if err := yaml.Unmarshal([]byte(r.text(path)), into); err != nil {
		r.complain("%s: %v", path, err)
	}
}

func (r *review) prometheus() {
	var conf struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			DNS []struct {
				Names []string
				Port  int
			} `yaml:"dns_sd_configs"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	r.yaml("compose/prometheus.yaml", &conf)
	s := r.project.Services["prometheus"]
	for _, c := range conf.ScrapeConfigs {
		for _, d := range c.DNS {
			for _, name := range d.Names {
				r.reaches(s, name, fmt.Sprint(d.Port))
			}
		}
	}
	for _, pattern := range conf.RuleFiles {
		files := mounted(s, pattern)
		if len(files) == 0 {
			r.complain("prometheus: %s: no such file is mounted", pattern)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				r.complain("%v", err)
			}
			for _, name := range unknownMetrics(r.t, string(text)) {
				r.complain("%s: %s is no metric", filepath.Base(file), name)
			}
		}
	}
}

func (r *review) collector() {
	var conf struct {
		Receivers, Processors, Exporters map[string]any
		Service                          struct {
			Pipelines map[string]struct{ Receivers, Processors, Exporters []string }
		}
	}
	r.yaml("compose/otel-collector.yaml", &conf)
	if len(conf.Service.Pipelines) == 0 {
		r.complain("otel-collector: there is no pipeline")
	}
	for _, p := range conf.Service.Pipelines {
		for kind, names := range map[string][]string{"receivers": p.Receivers, "processors": p.Processors, "exporters": p.Exporters} {
			for _, name := range names {
				if _, ok := map[string]map[string]any{"receivers": conf.Receivers, "processors": conf.Processors, "exporters": conf.Exporters}[kind][name]; !ok {
					r.complain("otel-collector: %s: %s is not configured", kind, name)
				}
			}
		}
	}
}

func (r *review) grafana() {
	s := r.project.Services["grafana"]
	var sources struct{ Datasources []struct{ UID, Type string } }
	r.yaml("grafana/provisioning/datasources/prometheus.yaml", &sources)
	uids := make(map[string]bool)
	for _, d := range sources.Datasources {
		uids[d.UID] = true
	}
	var boards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	r.yaml("grafana/provisioning/dashboards/tramo.yaml", &boards)
	var files []string
	for _, p := range boards.Providers {
		found := mounted(s, p.Options.Path+"/*.json")
		if len(found) == 0 {
			r.complain("grafana: %s: no such file is mounted", p.Options.Path)
		}
		files = append(files, found...)
	}
	if home := s.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]; home == nil || len(mounted(s, *home)) == 0 {
		r.complain("grafana: its home page is not mounted")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && !json.Valid(text) {
			err = fmt.Errorf("%s is not JSON", file)
		}
		if err != nil {
			r.complain("%v", err)
		}
		for _, name := range unknownMetrics(r.t, string(text)) {
			r.complain("%s: %s is no metric", filepath.Base(file), name)
		}
		for _, m := range regexp.MustCompile(`"type": "(?:prometheus|jaeger)",\s*"uid": "([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
			if !uids[m[1]] {
				r.complain("%s: there is no data source %s", filepath.Base(file), m[1])
			}
		}
	}
}
