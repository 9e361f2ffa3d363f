package chart_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// programs are the commands that the containers run, by the container's name.
var programs = map[string]string{"server": "tramo serve", "worker": "tramo-worker", "migrate": "tramo migrate"}

// A setting of docs/reference/settings.md, which is generated from the code.
type setting struct {
	commands []string
	secret   bool
}

var (
	heading  = regexp.MustCompile(`^## (TRAMO_[A-Z0-9_]+)$`)
	commands = regexp.MustCompile(`^\*(.+)\*$`)
	defaults = regexp.MustCompile("`[^`]*`")
	variable = regexp.MustCompile("`(TRAMO_[A-Z0-9_]+)`")
)

// settings are all settings, by their variables.
var settings = sync.OnceValues(func() (map[string]*setting, error) {
	page, err := os.ReadFile(filepath.Join(root, "docs/reference/settings.md"))
	if err != nil {
		return nil, err
	}
	head, body, _ := strings.Cut(string(page), "\n## ")
	all := make(map[string]*setting)
	var current *setting
	for line := range strings.Lines("## " + body) {
		line = strings.TrimSpace(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			current = &setting{}
			all[m[1]] = current
		} else if m := commands.FindStringSubmatch(line); m != nil {
			for c := range strings.FieldsFuncSeq(defaults.ReplaceAllString(m[1], ""), func(r rune) bool { return strings.ContainsRune(",;:", r) }) {
				current.commands = append(current.commands, strings.TrimSpace(c))
			}
		}
	}
	_, secrets, _ := strings.Cut(head, "Every secret can come from a file")
	for _, m := range variable.FindAllStringSubmatch(secrets, -1) {
		if s := all[m[1]]; s != nil {
			s.secret = true
		}
	}
	if len(all) == 0 || !all["TRAMO_DATABASE_URL"].secret {
		return nil, fmt.Errorf("settings.md has another form than is read here: %d settings", len(all))
	}
	return all, nil
})

// has reports whether a program has a setting, which may be the file of a secret.
func has(program, name string) error {
	all, err := settings()
	if err != nil {
		return err
	}
	s := all[name]
	if secret, ok := strings.CutSuffix(name, "_FILE"); s == nil && ok && all[secret] != nil && all[secret].secret {
		s = all[secret]
	}
	if s == nil || !slices.Contains(s.commands, program) {
		return fmt.Errorf("%s has no setting %s", program, name)
	}
	return nil
}

// shutdown is server.Config.ShutdownTimeout, which is no setting.
var shutdown = sync.OnceValues(func() (time.Duration, error) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "server/server.go"), nil, 0)
	if err != nil {
		return 0, err
	}
	var found time.Duration
	ast.Inspect(file, func(n ast.Node) bool {
		kv, ok := n.(*ast.KeyValueExpr)
		if !ok || fmt.Sprint(kv.Key) != "ShutdownTimeout" {
			return true
		}
		if product, ok := kv.Value.(*ast.BinaryExpr); ok && product.Op == token.MUL {
			if n, ok := product.X.(*ast.BasicLit); ok && fmt.Sprint(product.Y.(*ast.SelectorExpr).Sel) == "Second" {
				seconds, _ := strconv.Atoi(n.Value)
				found = time.Duration(seconds) * time.Second
			}
		}
		return true
	})
	if found == 0 {
		return 0, fmt.Errorf("server.go does not say ShutdownTimeout as a number of seconds")
	}
	return found, nil
})

// program checks that a container sets what its program has, listens where the pod says, and has the time that it needs.
func (r *relations) program(key, program string, environment map[string]string, c, spec values, grace int) {
	for name := range environment {
		if !strings.HasPrefix(name, "TRAMO_") {
			continue
		}
		if err := has(program, name); err != nil {
			r.wrong("%s: %w", key, err)
		}
	}
	listens := map[string]string{"http": environment["TRAMO_LISTEN"], "ops": environment["TRAMO_OPS_LISTEN"]}
	for _, p := range list(c, "ports") {
		if listens[text(p, "name")] != ":"+text(p, "containerPort") {
			r.wrong("%s: the port %s is not where %s listens, %s", key, text(p, "name"), program, listens[text(p, "name")])
		}
	}
	if program != "tramo migrate" {
		for probe, path := range map[string]string{"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"} {
			if text(c, probe+".httpGet.port") != "ops" || text(c, probe+".httpGet.path") != path {
				r.wrong("%s: the %s does not ask %s of the operations listener", key, probe, path)
			}
		}
	}
	switch program {
	case "tramo serve":
		needs, err := shutdown()
		if err != nil {
			r.wrong("%w", err)
		}
		sleep, _ := strconv.Atoi(text(c, "lifecycle.preStop.sleep.seconds"))
		if sleep < 10 {
			r.wrong("%s: the pod is told to stop before load balancers have forgotten it: preStop sleeps %d s", key, sleep)
		}
		if time.Duration(grace-sleep)*time.Second <= needs {
			r.wrong("%s: the grace period of %d s is not more than preStop, %d s, and the server's %s", key, grace, sleep, needs)
		}
		r.directory(key, environment["TRAMO_BUFFER_DIR"], environment["TRAMO_BUFFER_DISK"], c, spec)
	case "tramo-worker":
		stop, err := time.ParseDuration(environment["TRAMO_STOP_TIMEOUT"])
		if err != nil || time.Duration(grace)*time.Second < stop+10*time.Second {
			r.wrong("%s: the grace period of %d s is not TRAMO_STOP_TIMEOUT and 10 s more (%v)", key, grace, err)
		}
		r.directory(key, environment["TRAMO_TEMP_DIR"], environment["TRAMO_TEMP_SPACE"], c, spec)
	}
}

// directory checks that a directory is a volume with room for what the program may write.
func (r *relations) directory(key, path, size string, c, spec values) {
	mebibytes := func(s string) int {
		n, _ := strconv.Atoi(strings.TrimRight(s, "GMiB"))
		if strings.Contains(s, "Gi") {
			n *= 1024
		}
		return n
	}
	for _, m := range list(c, "volumeMounts") {
		if text(m, "mountPath") != path {
			continue
		}
		for _, v := range list(spec, "volumes") {
			if text(v, "name") != text(m, "name") {
				continue
			}
			if limit := text(v, "emptyDir.sizeLimit"); mebibytes(limit) <= mebibytes(size) {
				r.wrong("%s: the volume of %s, %s, has no room for %s", key, path, limit, size)
			}
			return
		}
	}
	r.wrong("%s: %s is no volume", key, path)
}

// chosen are settings that the chart has values of its own for.
var chosen = []string{
	"TRAMO_LISTEN", "TRAMO_OPS_LISTEN", "TRAMO_BUFFER_DIR", "TRAMO_BUFFER_DISK", "TRAMO_TEMP_DIR", "TRAMO_TEMP_SPACE", "TRAMO_STOP_TIMEOUT", "TRAMO_CONFINEMENT",
	"TRAMO_SCAN_MAX", "TRAMO_CLAMD", "TRAMO_S3_BUCKET", "TRAMO_S3_ENDPOINT", "TRAMO_RECEIPT_KEY_FILE", "TRAMO_RECEIPT_RETIRED_KEYS_FILE", "TRAMO_REPLICA",
}

// The schema of the values names the settings that exist, so that Helm refuses those that do not.
func TestSchemaHasTheSettings(t *testing.T) {
	t.Parallel()
	all, err := settings()
	must(t, err)
	names := func(choose func(name string, s *setting) bool) (chosen []any) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if choose(name, all[name]) {
				chosen = append(chosen, name)
			}
		}
		return chosen
	}
	of := func(s *setting, programs ...string) bool {
		return !slices.ContainsFunc(programs, func(p string) bool { return !slices.Contains(s.commands, p) })
	}
	plain := func(programs ...string) []any {
		return names(func(name string, s *setting) bool {
			return of(s, programs...) && !s.secret && !slices.Contains(chosen, name)
		})
	}
	secret := func(program string, files ...string) []any {
		return names(func(name string, s *setting) bool {
			return of(s, program) && (s.secret || slices.Contains(files, name))
		})
	}
	want := map[string][]any{
		"commonSettings": plain("tramo serve", "tramo-worker"),
		"serverSettings": plain("tramo serve"),
		"workerSettings": plain("tramo-worker"),
		"serverKeys":     secret("tramo serve", "TRAMO_RECEIPT_KEY_FILE", "TRAMO_RECEIPT_RETIRED_KEYS_FILE"),
		"workerKeys":     secret("tramo-worker"),
		"migrateKeys":    secret("tramo migrate"),
	}
	const path = "deploy/helm/tramo/values.schema.json"
	var schema values
	must(t, json.Unmarshal([]byte(read(t, path)), &schema))
	for definition, names := range want {
		at(schema, "$defs."+definition+".propertyNames").(values)["enum"] = names
	}
	made, err := json.MarshalIndent(schema, "", "  ")
	must(t, err)
	generated(t, path, strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(made))+"\n")
}
