package reference

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tramo/tramo/cmd/internal/cli"
)

// A container of a manifest, as far as it concerns a program's settings.
type container struct {
	Name string   `yaml:"name"`
	Args []string `yaml:"args"`
	Env  []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
}

// containers returns those of deploy/kubernetes/tramo.yaml.
func containers(t *testing.T) (all []container) {
	t.Helper()
	file, err := os.Open("../../../deploy/kubernetes/tramo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for d := yaml.NewDecoder(file); ; {
		var workload struct {
			Spec struct {
				Template struct {
					Spec struct {
						Containers []container `yaml:"containers"`
					} `yaml:"spec"`
				} `yaml:"template"`
			} `yaml:"spec"`
		}
		if err := d.Decode(&workload); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, workload.Spec.Template.Spec.Containers...)
	}
}

// secrets are values that the programs take.
var secrets = map[string]string{
	"TRAMO_DATABASE_URL_FILE":    "postgres://tramo_api:secret@db/tramo?sslmode=verify-full",
	"TRAMO_JWT_SECRET_FILE":      strings.Repeat("a1", 32),
	"TRAMO_API_PASSWORD_FILE":    "secret",
	"TRAMO_WORKER_PASSWORD_FILE": "secret",
}

// The programs take the arguments and the settings that the manifests for Kubernetes, which the chart renders, give them.
func TestProgramsTakeTheirManifests(t *testing.T) {
	programs := map[string]cli.Program{"server": programs()[0], "migrate": programs()[0], "worker": programs()[1]}
	seen := 0
	for _, c := range containers(t) {
		program, ok := programs[c.Name]
		if !ok {
			continue // clamd's
		}
		seen++
		t.Run(c.Name, func(t *testing.T) {
			for _, e := range c.Env {
				if strings.HasSuffix(e.Name, "_FILE") {
					if !strings.HasPrefix(e.Value, "/run/secrets/tramo/") || secrets[e.Name] == "" {
						t.Fatalf("%s=%s: no value is known for it here", e.Name, e.Value)
					}
					e.Value = filepath.Join(t.TempDir(), "secret")
					if err := os.WriteFile(e.Value, []byte(secrets[e.Name]), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				t.Setenv(e.Name, e.Value)
			}
			parser, err := cli.New(program)
			if err != nil {
				t.Fatal(err)
			}
			command, err := parser.Parse(c.Args)
			if err != nil {
				t.Fatalf("%s %s: %v", program.Name, c.Args, err)
			}
			for _, f := range command.Flags() {
				if len(f.Envs) == 1 && os.Getenv(f.Envs[0]) != "" && f.Target.IsZero() {
					t.Errorf("%s has no effect", f.Envs[0])
				}
			}
		})
	}
	if seen != len(programs) {
		t.Errorf("there are containers of %d programs, not of %d", seen, len(programs))
	}
}
