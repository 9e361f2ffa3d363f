// Package cli is what Tramo's commands share: settings that several of them have, and a way to report all
// that is wrong with the settings at once.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"

	"github.com/tramo/tramo/processing/mediatype"
)

// A Program is what a command line may say to one.
type Program struct {
	Name        string
	Description string
	Grammar     any // pointer to a struct, as kong takes it
}

// Main runs the command that the arguments name, until it ends or SIGINT or SIGTERM stops it, and exits.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var mistakes Mistakes
	parser := kong.Must(p.Grammar, kong.Name(p.Name), kong.Description(p.Description), kong.DefaultEnvars("TRAMO"), kong.Vars{"types": mediatype.Accepted},
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Bind(&mistakes), kong.BindTo(ctx, (*context.Context)(nil)))
	mistakes.readEnvironment(parser.Model)
	command, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	err = command.Run()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(1)
	}
}

// Mistakes gathers what is wrong with the settings.
type Mistakes struct{ found []error }

// Check adds a mistake with what the variable sets, if err is one.
func (m *Mistakes) Check(variable string, err error) {
	if err != nil {
		m.found = append(m.found, fmt.Errorf("%s: %w", variable, err))
	}
}

// Err returns all mistakes as one error, or nil.
func (m *Mistakes) Err() error {
	if len(m.found) == 0 {
		return nil
	}
	return fmt.Errorf("the configuration is not usable:\n%w", errors.Join(m.found...))
}

// readEnvironment notes every variable whose value its flag cannot take, and then hides it: kong would stop
// at the first.
func (m *Mistakes) readEnvironment(app *kong.Application) {
	checked := make(map[string]bool)
	_ = kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			for _, name := range flag.Envs {
				value, set := os.LookupEnv(name)
				if !set || checked[name] {
					continue
				}
				checked[name] = true
				scratch := reflect.New(flag.Target.Type()).Elem()
				err := flag.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: value}), scratch)
				if err != nil {
					m.Check(name, err)
					_ = os.Unsetenv(name)
				}
			}
		}
		return next(nil)
	})
}

// Bytes is a size, written such as 100MiB, 8MB or 5242880.
type Bytes int64

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size such as 100MiB", text)
	}
	*b = Bytes(n)
	return nil
}

// String implements [fmt.Stringer].
func (b Bytes) String() string { return humanize.IBytes(uint64(b)) }
