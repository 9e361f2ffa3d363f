package deploy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// installed is a copy of deploy/ as an operator has it after the how-to: with .env and secrets.
func installed(t *testing.T) (dir string) {
	t.Helper()
	dir = copyOf(t, filepath.Join(root, "deploy"))
	example, err := os.ReadFile(filepath.Join(dir, "compose/.env.example"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "compose/.env"), example, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "compose/secrets.sh")).CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v: %s", err, out)
	}
	return dir
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// load reads compose.yaml as docker compose does. What .env gives to containers stays apart.
func load(ctx context.Context, dir string, overrides ...string) (*types.Project, error) {
	options, err := cli.NewProjectOptions(append([]string{filepath.Join(dir, "compose/compose.yaml")}, overrides...),
		cli.WithWorkingDirectory(filepath.Join(dir, "compose")), cli.WithEnvFiles(), cli.WithDotEnv, cli.WithoutEnvironmentResolution,
		cli.WithProfiles([]string{"*"}))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

// The compose project is complete: what it mounts, asks for and sends to exists.
func TestCompose(t *testing.T) {
	t.Parallel()
	dir := installed(t)
	for _, mistake := range reviewCompose(t, dir) {
		t.Error(mistake)
	}
}

// The override that the how-to shows for an identity provider takes the secret for tokens away.
func TestComposeWithIdentityProvider(t *testing.T) {
	t.Parallel()
	_, override, _ := strings.Cut(read(t, "docs/how-to/deploy-with-compose.md"), "```yaml\n")
	override, _, _ = strings.Cut(override, "```")
	dir := installed(t)
	path := filepath.Join(dir, "compose/compose.override.yaml")
	if err := os.WriteFile(path, []byte(override), 0o600); err != nil {
		t.Fatal(err)
	}
	project, err := load(t.Context(), dir, path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	const name = "TRAMO_JWT_SECRET_FILE"
	if project.Services["server"].Environment[name] != nil || before.Services["server"].Environment[name] == nil {
		t.Errorf("%s is %v, and was %v", name, project.Services["server"].Environment[name], before.Services["server"].Environment[name])
	}
}

// Secrets are made once: a second run keeps them, and a later release adds what is missing.
func TestComposeSecretsAreKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(installed(t), "compose")
	contents := func() map[string]string {
		found := make(map[string]string)
		files, err := os.ReadDir(filepath.Join(dir, "secrets"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(dir, "secrets", f.Name()))
			if err != nil || len(text) < 32 {
				t.Errorf("secrets/%s: %d bytes, %v", f.Name(), len(text), err)
			}
			if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o444 {
				t.Errorf("secrets/%s: mode %v, and containers run as others: %v", f.Name(), info.Mode(), err)
			}
			found[f.Name()] = string(text)
		}
		return found
	}
	first := contents()
	if err := os.Remove(filepath.Join(dir, "secrets/ops_token")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "secrets.sh")).CombinedOutput()
	if err != nil || string(out) != "made secrets/ops_token\n" {
		t.Fatalf("%v: %s", err, out)
	}
	for name, text := range contents() {
		if same := first[name] == text; same != (name != "ops_token") {
			t.Errorf("secrets/%s after the second run: kept: %t", name, same)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of secrets: %v %v", info.Mode(), err)
	}
}

// Each of these mistakes is found.
func TestComposeMistakes(t *testing.T) {
	t.Parallel()
	const compose = "compose/compose.yaml"
	whole := installed(t)
	for _, c := range []struct{ file, old, planted, want string }{
		{compose, "postgres:17.11-trixie", "postgres:latest", "has no version"},
		{compose, "grafana:13.2.3", "grafana", "has no version"},
		{compose, "docker.io/prom/prometheus", "prom/prometheus", "names no registry"},
		{compose, "${VERSION:?copy .env.example to .env}\n    command", "0.0.9\n    command", "want the version of this release"},
		{compose, "./prometheus.yaml:", "./prometheus.yml:", "prometheus.yml, which does not exist"},
		{compose, "../grafana/dashboards:", "../grafana/boards:", "grafana/boards, which does not exist"},
		{compose, "postgres:/var/lib/postgresql/data", "postgresql:/var/lib/postgresql/data", "undefined volume"},
		{compose, "volumes:\n  buffers:", "volumes:\n  spare:\n  buffers:", "volume spare is used by nothing"},
		{compose, "TRAMO_SERVE_CONTENT", "TRAMO_" + "SERVE_CONTENTS", "_CONTENTS is no setting"},
		{compose, "TRAMO_SERVE_CONTENT: \"true\"", "TRAMO_WORKERS: \"2\"", "server: TRAMO_WORKERS is no setting of its command"},
		{compose, "TRAMO_OPS_TOKEN_FILE: /run/secrets/ops_token", "TRAMO_OPS_TOKEN: 0123456789abcdef", "TRAMO_OPS_TOKEN is a secret in the environment"},
		{compose, "POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "POSTGRES_PASSWORD: postgres", "POSTGRES_PASSWORD is a secret in the environment"},
		{compose, "/run/secrets/receipt_key\n", "/run/secrets/receipt_kye\n", "/run/secrets/receipt_kye, which it is not given"},
		{compose, "jwt_secret, ops_token, receipt_key", "ops_token, receipt_key", "/run/secrets/jwt_secret, which it is not given"},
		{compose, "secrets: [grafana_password]", "secrets: [grafana_password, ops_token]", "grafana: is given the secret ops_token and does not use it"},
		{compose, "./secrets/webhook_key", "./secrets/webhooks_key", "webhooks_key, which secrets.sh does not make"},
		{compose, "http://s3:7070", "http://s3:9000", "s3:9000: s3 does not listen there"},
		{compose, "    networks: [data]\n    stop_grace_period: 1m", "    networks: [default]\n    stop_grace_period: 1m", "migrate: postgres:5432: they share no network"},
		{compose, "--port :7070", "--port :7071", "s3:7070: s3 does not listen there"},
		{compose, "tcp://clamav:3310", "tcp://clamd:3310", "clamd:3310: there is no service clamd"},
		{compose, "${SERVER_PORT:-8080}:8080", "${SERVER_PORT:-8080}:8081", "8081, where it does not listen"},
		{compose, "${SERVER_PORT:-8080}:8080", "${SERVER_PORT:-8080}:9090", "operations of server are published"},
		{compose, "\"${BIND_ADDRESS:-127.0.0.1}:${GRAFANA_PORT", "\"${GRAFANA_PORT", "published on every address"},
		{compose, "${JAEGER_PORT:-16686}", "${JAEGERPORT:-16686}", "JAEGERPORT is not explained in .env.example"},
		{compose, "test: [CMD, /usr/bin/tramo, healthcheck, --ready]", "test: [CMD, /usr/bin/tramo, health]", "is not a command of the image"},
		{compose, "test: [CMD, /usr/bin/tramo-worker, healthcheck, --ready]", "test: [CMD, /usr/bin/tramo, healthcheck, --ready]", "is not a command of the image"},
		{compose, "healthcheck: {disable: true} # it ends", "healthcheck: {disable: true}", "migrate: no health check, and no reason"},
		{compose, "    healthcheck:\n      test: [CMD, clamdcheck.sh]", "    x-healthcheck:\n      test: [CMD, clamdcheck.sh]", "clamav: no health check"},
		{compose, "prometheus: {condition: service_healthy}", "otel-collector: {condition: service_healthy}", "grafana: waits for otel-collector to be healthy, which has no health check"},
		{compose, "migrate: {condition: service_completed_successfully}", "migrate: {condition: service_healthy}", "migrate to be healthy"},
		{compose, "  read_only: true\n", "", "server: its root is writable"},
		{compose, "  cap_drop: [ALL]\n  security_opt", "  security_opt", "server: has capabilities"},
		{compose, "stop_grace_period: 45s", "stop_grace_perod: 45s", "stop_grace_perod"},
		{"compose/.env.example", "JAEGER_PORT=16686\n", "JAEGER_PORT=16686\nLOKI_PORT=3100\n", "LOKI_PORT is used by nothing"},
		{"compose/.env.example", "TRAMO_LOG_LEVEL", "TRAMO_" + "LOGLEVEL", "_LOGLEVEL is no setting"},
		{"compose/.env.example", "TRAMO_LOG_LEVEL=info", "TRAMO_LOG_LEVEL=info\nTRAMO_JWT_SECRET=x", "TRAMO_JWT_SECRET is a secret"},
		{"compose/.env.example", "# debug, info, warn or error.\n", "", "TRAMO_LOG_LEVEL is not explained"},
		{"compose/.env.example", "VERSION=0.1.0", "VERSION=0.0.1", "want the version of this release"},
		{"compose/secrets.sh", "postgres:5432/tramo", "db:5432/tramo", "db:5432: there is no service db"},
		{"compose/prometheus.yaml", "names: [worker]", "names: [workers]", "there is no service workers"},
		{"compose/prometheus.yaml", "port: 9091", "port: 9092", "worker:9092: worker does not listen there"},
		{"compose/prometheus.yaml", "credentials_file: /run/secrets/ops_token", "credentials_file: /run/secrets/token", "/run/secrets/token, which it is not given"},
		{"compose/prometheus.yaml", "/etc/prometheus/rules/", "/etc/prometheus/alerts/", "/etc/prometheus/alerts/*.yaml: no such file is mounted"},
		{"compose/otel-collector.yaml", "jaeger:4317", "jaeger:4319", "jaeger:4319: jaeger does not listen there"},
		{"compose/otel-collector.yaml", "exporters: [otlp_grpc]", "exporters: [otlp]", "exporters: otlp is not configured"},
		{"grafana/provisioning/datasources/prometheus.yaml", "prometheus:9090", "prometheus:9099", "prometheus:9099: prometheus does not listen there"},
		{"grafana/provisioning/dashboards/tramo.yaml", "/etc/tramo/dashboards", "/etc/dashboards", "/etc/dashboards: no such file is mounted"},
		{"grafana/dashboards/tramo.json", "tramo_upload_received_bytes_total", "tramo_upload_bytes_total", "tramo_upload_bytes_total is no metric"},
		{"grafana/dashboards/tramo.json", `"uid": "prometheus"`, `"uid": "prom"`, "data source prom"},
		{"helm/tramo/files/rules/tramo.yaml", "tramo_clamd_up", "tramo_clamav_up", "tramo_clamav_up is no metric"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, whole)
			path := filepath.Join(dir, c.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), c.old) {
				t.Fatalf("%q is not in %s", c.old, c.file)
			}
			if err := os.WriteFile(path, []byte(strings.Replace(string(text), c.old, c.planted, 1)), 0o700); err != nil {
				t.Fatal(err)
			}
			switch c.file {
			case "compose/.env.example":
				err = os.Rename(path, filepath.Join(dir, "compose/.env"))
			case "compose/secrets.sh":
				if err = os.RemoveAll(filepath.Join(dir, "compose/secrets")); err == nil {
					err = exec.CommandContext(t.Context(), path).Run()
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			found := reviewCompose(t, dir)
			if !slices.ContainsFunc(found, func(m string) bool { return strings.Contains(m, c.want) }) {
				t.Errorf("%q in place of %q: want %q among\n%s", c.planted, c.old, c.want, strings.Join(found, "\n"))
			}
		})
	}
}
