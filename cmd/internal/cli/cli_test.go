package cli

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tramo/tramo/telemetry"
)

type partConfig struct {
	Size  int64         `name:"part-size" type:"bytes" help:"Size."`
	Delay time.Duration `name:"part-delay" help:"Delay."`
	Depth nested        `embed:""`
	Inner string        `kong:"-"`
}

type nested struct {
	Count int `name:"s3-count" help:"Count."`
}

func (c partConfig) Validate() error {
	var errs []error
	if c.Size < 5<<20 {
		errs = append(errs, fmt.Errorf("TRAMO_PART_SIZE: %d is too small", c.Size))
	}
	if c.Depth.Count < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_S3_COUNT: %d is less than 0", c.Depth.Count))
	}
	return errors.Join(errs...)
}

type netConfig struct {
	Allow []netip.Prefix `name:"allow" help:"Networks."`
}

func (c netConfig) Validate() error {
	if len(c.Allow) == 0 {
		return errors.New("TRAMO_ALLOW: none")
	}
	return nil
}

type keyConfig struct {
	Key   telemetry.Secret `name:"key" help:"Key."`
	Spare telemetry.Secret `name:"spare-key" help:"Spare key."`
}

func (c keyConfig) Validate() error {
	if c.Key == "short" {
		return errors.New("TRAMO_KEY: it is short")
	}
	return nil
}

func (c keyConfig) Warnings() []string {
	if c.Key == "worn" {
		return []string{"TRAMO_KEY: it is worn"}
	}
	return nil
}

type runCommand struct {
	Part partConfig `embed:""`
	Net  netConfig  `embed:""`
	Keys keyConfig  `embed:""`
	Limit
	DryRun bool `env:"-"`
}

type Limit struct {
	Max *int64 `env:"-" type:"bytes"`
}

func (c *runCommand) Check() error {
	if c.Max != nil && *c.Max < c.Part.Size {
		return errors.New("--max: less than a part")
	}
	return nil
}

type testGrammar struct {
	Root
	Run   runCommand `cmd:""`
	Other struct {
		Wait time.Duration `name:"wait" help:"Wait."`
	} `cmd:""`
}

func newParser(t *testing.T) (*testGrammar, *kong.Kong) {
	t.Helper()
	g := &testGrammar{Run: runCommand{Part: partConfig{Size: 8 << 20, Delay: 90 * time.Minute, Inner: "kept"}}}
	parser, err := New(Program{Name: "test", Grammar: g}, kong.Exit(func(int) {}), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	return g, parser
}

// Values of the grammar are defaults, variables go before them, and flags before variables.
func TestFlagsVariablesDefaults(t *testing.T) {
	t.Setenv("TRAMO_ALLOW", "10.0.0.0/8,::1/128")
	t.Setenv("TRAMO_S3_COUNT", "3")
	t.Setenv("TRAMO_DRY_RUN", "true") // an option has no variable
	g, parser := newParser(t)
	if _, err := parse(parser, []string{"run", "--s3-count=4", "--max=1GiB"}); err != nil {
		t.Fatal(err)
	}
	r := g.Run
	if r.Part.Size != 8<<20 || r.Part.Delay != 90*time.Minute || r.Part.Inner != "kept" || r.Part.Depth.Count != 4 ||
		len(r.Net.Allow) != 2 || *r.Max != 1<<30 || r.DryRun {
		t.Errorf("%+v", r)
	}
}

// Every mistake is reported at once: values that cannot be read, values that are not valid, and rules over several.
func TestMistakesAreReportedAtOnce(t *testing.T) {
	t.Setenv("TRAMO_PART_DELAY", "soon")
	t.Setenv("TRAMO_PART_SIZE", "1MiB")
	t.Setenv("TRAMO_S3_COUNT", "-1")
	t.Setenv("TRAMO_ALLOW", "10.0")
	t.Setenv("TRAMO_WAIT", "not read by this command")
	_, parser := newParser(t)
	_, err := parse(parser, []string{"run", "--max=1KiB"})
	if !errors.As(err, new(mistakes)) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{
		"TRAMO_PART_DELAY: ", "TRAMO_PART_SIZE: 1048576 is too small", "TRAMO_S3_COUNT: -1 is less than 0",
		`TRAMO_ALLOW: "10.0" is not a network such as 10.20.0.0/16`, "--max: less than a part",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "TRAMO_WAIT") {
		t.Errorf("a setting of another command is reported:\n%v", err)
	}
}

// A secret comes from the file that its variable with _FILE names. A flag goes before it; a variable beside it, a file that is
// not there and one that is empty are mistakes, and no mistake tells a secret.
func TestSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("TRAMO_ALLOW", "10.0.0.0/8")
	for name, c := range map[string]struct {
		key, keyFile string
		args         []string
		want         telemetry.Secret
		mistake      string
	}{
		"from a file":                {"", file("good", "of the file\n"), nil, "of the file", ""},
		"with blanks and two lines":  {"", file("pem", " a\nb \r\n"), nil, " a\nb ", ""},
		"flag before the file":       {"", file("good", "of the file\n"), []string{"--key=of the flag"}, "of the flag", ""},
		"variable":                   {"of the variable", "", nil, "of the variable", ""},
		"both":                       {"of the variable", file("good", "of the file"), nil, "", "TRAMO_KEY, TRAMO_KEY_FILE: both are set"},
		"no such file":               {"", filepath.Join(dir, "none"), nil, "", "TRAMO_KEY_FILE: "},
		"empty":                      {"", file("empty", "\n"), nil, "", "TRAMO_KEY_FILE: "},
		"a file that is not allowed": {"", file("short", "short\n"), nil, "", "TRAMO_KEY: it is short"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TRAMO_KEY", c.key)
			t.Setenv("TRAMO_KEY_FILE", c.keyFile)
			t.Setenv("TRAMO_PART_SIZE_FILE", filepath.Join(dir, "none")) // is no variable: sizes are no secrets
			g, parser := newParser(t)
			_, err := parse(parser, append([]string{"run"}, c.args...))
			switch {
			case c.mistake == "" && (err != nil || g.Run.Keys.Key != c.want):
				t.Errorf("%q, %v", string(g.Run.Keys.Key), err)
			case c.mistake != "" && (!errors.As(err, new(mistakes)) || !strings.Contains(err.Error(), c.mistake)):
				t.Errorf("%v, want %q", err, c.mistake)
			case err != nil && strings.Contains(err.Error(), "of the"):
				t.Errorf("it tells the secret: %v", err)
			}
		})
	}
}

// Warnings of all structs of a command are found.
func TestWarnings(t *testing.T) {
	g := &testGrammar{Run: runCommand{Keys: keyConfig{Key: "worn"}}}
	var texts []string
	var conf telemetry.LogConfig
	eachConfig(reflect.ValueOf(&g.Run).Elem(), func(c any) { collect(c, &conf, &texts) })
	if len(texts) != 1 || texts[0] != "TRAMO_KEY: it is worn" {
		t.Errorf("%q", texts)
	}
	for url, plain := range map[string]bool{
		"http://minio:9000": true, "redis://cache:6379/0": true, "tcp://10.0.0.7:3310": true, "http://[2001:db8::1]:9000": true,
		"https://minio:9000": false, "rediss://cache:6379/0": false, "http://127.0.0.1:9000": false, "http://[::1]:9000": false,
		"redis://localhost:6379": false, "unix:/run/clamd.sock": false, "http": false, "": false, "10.0.0.7:3310": false,
	} {
		if got := isPlain(reflect.ValueOf(telemetry.Secret(url))); got != plain {
			t.Errorf("%s is plain: %t", url, got)
		}
	}
}

func TestDefaultsAreWrittenAsTheyAreRead(t *testing.T) {
	t.Parallel()
	_, parser := newParser(t)
	defaults := make(map[string]string)
	_ = eachFlag(parser.Model, func(f *kong.Flag) error {
		defaults[f.Name] = f.Default
		return nil
	})
	for name, want := range map[string]string{"part-size": "8MiB", "part-delay": "1h30m", "s3-count": "0", "allow": "", "max": ""} {
		if defaults[name] != want {
			t.Errorf("--%s has the default %q, want %q", name, defaults[name], want)
		}
	}
	for d, want := range map[time.Duration]string{168 * time.Hour: "168h", time.Minute: "1m", 50 * time.Millisecond: "50ms", 20 * time.Second: "20s"} {
		if got := writeDuration(d); got != want {
			t.Errorf("%s is written %s", d, got)
		}
	}
	for n, want := range map[int64]string{100 << 20: "100MiB", 1 << 30: "1GiB", 5 << 19: "2.5MiB"} {
		if got := Size(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
}

func TestVersionFlag(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	exited := -1
	parser, err := New(Program{Name: "test", Grammar: new(testGrammar)}, kong.Exit(func(code int) { exited = code }), kong.Writers(&out, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = parse(parser, []string{"--version"}) // goes on, because Exit did not
	if want := "test " + telemetry.ThisBuild().String() + "\n"; out.String() != want || exited != 0 {
		t.Errorf("%d, %q, want %q", exited, out.String(), want)
	}
}
