// Package cli reads command lines and the environment into the settings of Tramo's programs.
//
// A package that has settings declares them in a struct: a field's tag name is the setting's one name, help says what it
// does, and a Validate method says what is wrong with the values. A command embeds such structs (`embed:""`), with their
// defaults as values. Everything else follows from that: the flag --part-size, the variable TRAMO_PART_SIZE, --help, and
// docs/reference/settings.md. A field of type [telemetry.Secret] can also come from a file: TRAMO_KEY_FILE names the one with
// the value of TRAMO_KEY.
package cli

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/telemetry"
)

// A Program has commands, or is one.
type Program struct {
	Name        string
	Description string
	// Grammar points to a struct whose fields are commands, or the settings of the only one (kong.Parse). Values of fields
	// are defaults. A flag with the tag env:"-" is an option of a single run, and has no variable.
	Grammar any
	// Metrics registers the metrics of the program, without what it runs on; nil for none.
	Metrics func(context.Context, prometheus.Registerer) error
}

// Checker is a command with rules over several of its settings, or over its options.
type Checker interface {
	// Check reports every mistake at once.
	Check() error
}

// Main runs the command that the arguments name, until it ends or SIGINT or SIGTERM stops it, and exits. It reports all
// mistakes in the settings at once.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	parser, err := New(p, kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		panic(err) // the grammar is wrong, whatever the arguments
	}
	command, err := parse(parser, os.Args[1:])
	if !errors.As(err, new(mistakes)) {
		parser.FatalIfErrorf(err)
		warn(command)
		err = command.Run()
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(1)
	}
}

// mistakes are what is wrong with the settings of a command.
type mistakes struct{ error }

// Error implements [error].
func (m mistakes) Error() string { return "the configuration is not usable:\n" + m.error.Error() }

// parse reads arguments and environment. What is wrong with settings is one error of type mistakes.
func parse(parser *kong.Kong, args []string) (*kong.Context, error) {
	unread := readEnvironment(parser.Model)
	command, err := parser.Parse(args)
	var invalid mistakes
	if failed := new(kong.ParseError); errors.As(err, &invalid) && errors.As(err, &failed) {
		command = failed.Context
	} else if err != nil {
		return nil, err
	}
	var errs []error
	for _, f := range command.Flags() {
		for _, name := range f.Envs {
			errs = append(errs, unread[name])
		}
	}
	if err := errors.Join(append(errs, invalid.error)...); err != nil {
		return nil, mistakes{err}
	}
	return command, nil
}

// A Warner is a struct of settings that are valid and worth a warning.
type Warner interface {
	// Warnings returns one text for each, which begins with the variable.
	Warnings() []string
}

// warn logs the warnings of a command's settings.
func warn(command *kong.Context) {
	conf := telemetry.LogConfig{Format: "text", Level: "info"} // of commands for a terminal
	var texts []string
	eachConfig(command.Model.Target, func(c any) { // of a program that is one command
		collect(c, &conf, &texts)
	})
	if selected := command.Selected(); selected != nil {
		eachConfig(selected.Target, func(c any) { collect(c, &conf, &texts) })
	}
	for _, f := range command.Flags() {
		if f.Envs != nil && isPlain(f.Target) {
			texts = append(texts, f.Envs[0]+": what is sent there goes over the network in plain text; use a URL with TLS")
		}
	}
	log := telemetry.NewLogger(os.Stderr, conf)
	for _, text := range texts {
		log.Warn("setting", slog.String("warning", text))
	}
}

// isPlain reports whether a value is a URL that leads to another machine without encryption.
func isPlain(v reflect.Value) bool {
	if v.Kind() != reflect.String {
		return false
	}
	u, err := url.Parse(v.String())
	return err == nil && slices.Contains([]string{"http", "redis", "tcp"}, u.Scheme) && !telemetry.IsThisMachine(u.Hostname())
}

func collect(c any, conf *telemetry.LogConfig, texts *[]string) {
	if l, ok := c.(*telemetry.LogConfig); ok {
		*conf = *l
	}
	if w, ok := c.(Warner); ok {
		*texts = append(*texts, w.Warnings()...)
	}
}

// Root is embedded by the grammar of a program.
type Root struct {
	Version kong.VersionFlag `name:"version" env:"-" help:"Print the version and exit."`
}

// Validate is called by kong before the Validate methods of the settings, at the first mistake of which it would stop.
func (Root) Validate(command *kong.Context) error {
	node := command.Model.Node
	if selected := command.Selected(); selected != nil {
		node = selected
	}
	err := validateFields(node.Target)
	if c, ok := node.Target.Addr().Interface().(Checker); ok {
		err = errors.Join(err, c.Check())
	}
	if err != nil {
		return mistakes{err}
	}
	return nil
}

// New returns the parser of a program's command line.
func New(p Program, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(p.Grammar, append(options,
		kong.Name(p.Name), kong.Description(p.Description), kong.Vars{"version": p.Name + " " + telemetry.ThisBuild().String()},
		kong.UsageOnError(), kong.Resolvers(kong.ResolverFunc(resolveSecret)), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.NamedMapper("bytes", kong.MapperFunc(readSize)), kong.TypeMapper(reflect.TypeFor[netip.Prefix](), kong.MapperFunc(readNetwork)),
		kong.PostBuild(func(k *kong.Kong) error {
			return eachFlag(k.Model, func(f *kong.Flag) error {
				nameVariable(f)
				return showDefault(f)
			})
		}))...)
}

func eachFlag(app *kong.Application, do func(*kong.Flag) error) error {
	return kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok {
			if err := do(f); err != nil {
				return err
			}
		}
		return next(nil)
	})
}

// nameVariable gives a setting its variable: TRAMO_PART_SIZE for --part-size.
func nameVariable(f *kong.Flag) {
	option := f.Name == "help" || len(f.Tag.Envs) == 1 && f.Tag.Envs[0] == "-"
	f.Tag.Envs = nil
	if !option {
		f.Tag.Envs = []string{"TRAMO_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))}
	}
	f.Envs = f.Tag.Envs
}

// showDefault makes the value that the grammar has for a flag its default, as it would be written.
func showDefault(f *kong.Flag) error {
	number := f.Target.CanInt() && f.Tag.Type == "" // whose 0 says something
	if f.HasDefault || f.Target.IsZero() && !number {
		return nil
	}
	text, err := write(f.Target, f.Tag.Type)
	f.HasDefault, f.Default = true, text
	return err
}

// write is the inverse of how kong reads a value.
func write(v reflect.Value, named string) (string, error) {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		return string(text), err
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return writeDuration(d), nil
	}
	if named == "bytes" {
		return Size(v.Int()), nil
	}
	return fmt.Sprint(v.Interface()), nil
}

// writeDuration leaves out the zeros of 168h0m0s.
func writeDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// Size writes a number of bytes, such as 100MiB.
func Size(bytes int64) string {
	return strings.ReplaceAll(strings.ReplaceAll(humanize.IBytes(uint64(bytes)), " ", ""), ".0", "")
}

// readSize reads sizes such as 100MiB, 8MB or 5242880 into an int64 with the tag type:"bytes".
func readSize(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("size", &text); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size such as 100MiB", text)
	}
	reflect.Indirect(target).SetInt(int64(n))
	return nil
}

// readNetwork reads a network into a [netip.Prefix].
func readNetwork(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("network", &text); err != nil {
		return err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("%q is not a network such as 10.20.0.0/16", text)
	}
	target.Set(reflect.ValueOf(p))
	return nil
}

// fileSuffix makes the variable that names the file of a secret.
const fileSuffix = "_FILE"

// resolveSecret returns the content of a secret's file, nil if there is none.
func resolveSecret(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	value, err := readSecret(f)
	if value == "" || err != nil { // which readEnvironment reports
		return nil, nil //nolint:nilnil // kong's way to say that there is no value
	}
	return value, nil
}

// readSecret returns the content of the file that a secret's variable names, without the line break at its end; "" if it names
// none.
func readSecret(f *kong.Flag) (string, error) {
	if f.Target.Type() != reflect.TypeFor[telemetry.Secret]() || len(f.Envs) == 0 {
		return "", nil
	}
	variable := f.Envs[0] + fileSuffix
	path := os.Getenv(variable)
	if path == "" {
		return "", nil
	}
	if os.Getenv(f.Envs[0]) != "" {
		return "", fmt.Errorf("%s, %s: both are set; set one", f.Envs[0], variable)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	value := strings.TrimRight(string(content), "\r\n")
	if value == "" {
		return "", fmt.Errorf("%s: %s is empty", variable, path)
	}
	return value, nil
}

// readEnvironment returns what is wrong with variables whose values their flags cannot take, by name, and hides these from
// kong, which would stop at the first.
func readEnvironment(app *kong.Application) map[string]error {
	unread := make(map[string]error)
	_ = eachFlag(app, func(f *kong.Flag) error {
		if _, err := readSecret(f); err != nil {
			unread[f.Envs[0]] = err
			return nil
		}
		for _, name := range f.Envs {
			value, set := os.LookupEnv(name)
			if !set {
				continue
			}
			scratch := reflect.New(f.Target.Type()).Elem()
			if err := f.Mapper.Decode(&kong.DecodeContext{Value: f.Value, Scan: kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: value})}, scratch); err != nil {
				unread[name] = fmt.Errorf("%s: %w", name, err)
				_ = os.Unsetenv(name)
			}
		}
		return nil
	})
	return unread
}

// validateFields calls Validate of each struct that is embedded in v.
func validateFields(v reflect.Value) error {
	var errs []error
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if _, embedded := field.Tag.Lookup("embed"); !embedded && !field.Anonymous {
			continue
		}
		if field.IsExported() {
			if c, ok := v.Field(i).Addr().Interface().(interface{ Validate() error }); ok {
				errs = append(errs, c.Validate())
				continue
			}
		}
		errs = append(errs, validateFields(v.Field(i)))
	}
	return errors.Join(errs...)
}

// eachConfig calls do with a pointer to each exported struct that is embedded in v, on whatever level.
func eachConfig(v reflect.Value, do func(any)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if _, embedded := field.Tag.Lookup("embed"); !embedded && !field.Anonymous || v.Field(i).Kind() != reflect.Struct {
			continue
		}
		if field.IsExported() {
			do(v.Field(i).Addr().Interface())
		}
		eachConfig(v.Field(i), do)
	}
}
