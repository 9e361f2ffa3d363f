package tramo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/tenant"
)

type deadLettersCommand struct {
	List    deadLettersListCommand    `cmd:"" help:"List dead letters: uploads whose processing was given up."`
	Retry   deadLettersRetryCommand   `cmd:"" help:"Process the uploads of dead letters again."`
	Discard deadLettersDiscardCommand `cmd:"" help:"Close dead letters: their uploads stay failed and are no longer listed."`
}

func defaultDeadLetters() deadLettersCommand {
	choice := letterChoice{Log: telemetry.DefaultLogConfig()}
	return deadLettersCommand{Retry: deadLettersRetryCommand{choice}, Discard: deadLettersDiscardCommand{choice}}
}

// letterFilter selects dead letters, over all tenants.
type letterFilter struct {
	Tenant string    `env:"-" placeholder:"NAME" help:"Dead letters of this tenant only: its name or its id."`
	Step   string    `env:"-" help:"Dead letters of this step only, such as scan."`
	Since  sinceTime `env:"-" placeholder:"WHEN" help:"Dead letters written since then only: a time such as 2026-11-20T00:00:00Z, or a duration until now such as 24h."`
}

// none reports whether the filter selects everything.
func (f letterFilter) none() bool { return f == letterFilter{} }

// sinceTime is a time, written as such or as a duration until now.
type sinceTime struct{ time.Time }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *sinceTime) UnmarshalText(text []byte) (err error) {
	if ago, err := time.ParseDuration(string(text)); err == nil && ago >= 0 {
		s.Time = time.Now().Add(-ago)
		return nil
	}
	if s.Time, err = time.Parse(time.RFC3339, string(text)); err != nil {
		return fmt.Errorf("%q is neither a time such as 2026-11-20T00:00:00Z nor a duration such as 24h", text)
	}
	return nil
}

// lettersAtOnce is how many dead letters are read at a time.
const lettersAtOnce = 500

// each calls do with all dead letters that match the filter and the state, newest first.
func (f letterFilter) each(ctx context.Context, db *storage.DB, state deadletter.State, do func(deadletter.Letter) error) error {
	owner, err := f.tenantID(ctx, db)
	if err != nil {
		return err
	}
	page := deadletter.Page{Limit: lettersAtOnce, State: state, Step: f.Step, Since: f.Since.Time}
	for {
		found, err := deadletter.ListAll(ctx, db, owner, page)
		if err != nil {
			return err
		}
		for _, d := range found {
			if err := do(d); err != nil {
				return err
			}
			page.Before = d.ID
		}
		if len(found) < lettersAtOnce {
			return nil
		}
	}
}

// tenantID returns the tenant of the filter, or the zero id for all.
func (f letterFilter) tenantID(ctx context.Context, db *storage.DB) (uuid.UUID, error) {
	if f.Tenant == "" {
		return uuid.Nil, nil
	}
	all, err := db.Tenants(ctx)
	if err != nil {
		return uuid.Nil, err
	}
	for _, t := range all {
		if t.Name == f.Tenant || t.ID.String() == f.Tenant {
			return t.ID, nil
		}
	}
	return uuid.Nil, fmt.Errorf("there is no tenant %q", f.Tenant)
}

type deadLettersListCommand struct {
	Database storage.Config `embed:""`
	letterFilter
	State string `env:"-" default:"open" enum:"open,retried,discarded,settled,all" help:"Dead letters in this state only: open, retried, discarded, settled or all."`
	JSON  bool   `name:"json" env:"-" help:"Print one JSON object a line, with the whole error."`
}

// Run implements the command.
func (c *deadLettersListCommand) Run(ctx context.Context) error {
	db, err := openAsOperator(ctx, c.Database)
	if err != nil {
		return err
	}
	defer db.Close()
	state := deadletter.State(c.State)
	if c.State == "all" {
		state = ""
	}
	out := newLetterList(os.Stdout, c.JSON)
	if err := c.each(ctx, db, state, out.line); err != nil {
		return err
	}
	return out.end()
}

// A letterList prints dead letters, as a table or as JSON.
type letterList struct {
	json  *json.Encoder // nil for a table
	table *tabwriter.Writer
	to    io.Writer
	n     int
}

func newLetterList(to io.Writer, asJSON bool) *letterList {
	if asJSON {
		return &letterList{to: to, json: json.NewEncoder(to)}
	}
	return &letterList{to: to, table: tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)}
}

func (l *letterList) line(d deadletter.Letter) error {
	l.n++
	if l.json != nil {
		return l.json.Encode(struct {
			Tenant uuid.UUID `json:"tenant_id"`
			deadletter.Letter
		}{d.Tenant, d})
	}
	if l.n == 1 {
		fmt.Fprintln(l.table, "ID\tTENANT\tUPLOAD\tFAILED\tSTATE\tSTEP\tATTEMPTS\tERROR")
	}
	fmt.Fprintf(l.table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", d.ID, d.Tenant, d.Upload, d.FailedAt.UTC().Format(time.RFC3339), d.State, d.Step,
		d.Attempts, short(d.Error))
	return nil
}

func (l *letterList) end() error {
	if l.json != nil {
		return nil
	}
	if l.n == 0 {
		fmt.Fprintln(l.to, "There are no dead letters.")
	}
	return l.table.Flush()
}

// short is the beginning of an error on one line, without control characters.
func short(s string) string {
	const most = 100 // runes
	line := []rune(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " "))
	if len(line) > most {
		return string(line[:most-1]) + "…"
	}
	return string(line)
}

// letterChoice selects dead letters by their ids, or all that match a filter.
type letterChoice struct {
	Database storage.Config      `embed:""`
	Log      telemetry.LogConfig `embed:""`
	letterFilter
	IDs    []uuid.UUID `arg:"" optional:"" name:"id" help:"Ids of dead letters, as tramo dead-letters list prints them."`
	All    bool        `env:"-" help:"All open dead letters that --tenant, --step and --since select."`
	DryRun bool        `env:"-" help:"Only print which dead letters are selected."`
}

var errChoice = errors.New("ID, --all: name dead letters by their ids, or give --all, with --tenant, --step and --since if wanted")

// Check implements [cli.Checker].
func (c *letterChoice) Check() error {
	if c.All == (len(c.IDs) > 0) || !c.All && !c.none() {
		return errChoice
	}
	return nil
}

// letterWork is what a command does to each dead letter.
type letterWork struct {
	does, did string // in the output: "would retry", "retried"
	do        func(context.Context, uuid.UUID) error
}

// run does the work and prints the result for each dead letter. After a failure it goes on with the others; the command
// fails in the end.
func (c *letterChoice) run(ctx context.Context, w func(*deadletter.Service) letterWork) error {
	log := telemetry.NewLogger(os.Stderr, c.Log)
	db, err := openAsOperator(ctx, c.Database)
	if err != nil {
		return err
	}
	defer db.Close()
	q, err := queue.New(db, log)
	if err != nil {
		return err
	}
	work := w(&deadletter.Service{DB: db, Queue: q, Uploaded: prometheus.NewCounter(prometheus.CounterOpts{}), Log: log})
	chosen, unknown, err := c.chosen(ctx, db)
	if err != nil {
		return err
	}
	failed := len(unknown)
	for _, id := range unknown {
		fmt.Fprintf(os.Stdout, "%s: there is no such dead letter\n", id)
	}
	done := 0
	for _, d := range chosen {
		if c.DryRun {
			fmt.Fprintf(os.Stdout, "%s: would %s upload %s of tenant %s\n", d.ID, work.does, d.Upload, d.Tenant)
			continue
		}
		if err := work.do(asOperator(ctx, d.Tenant), d.ID); err != nil {
			failed++
			fmt.Fprintf(os.Stdout, "%s: not %s: %v\n", d.ID, work.did, reason(err))
			continue
		}
		done++
		fmt.Fprintf(os.Stdout, "%s: %s upload %s of tenant %s\n", d.ID, work.did, d.Upload, d.Tenant)
	}
	fmt.Fprintf(os.Stdout, "%d found, %d %s, %d failed\n", len(chosen), done, work.did, failed)
	if failed > 0 {
		return fmt.Errorf("%d dead letters could not be %s", failed, work.did)
	}
	return nil
}

// chosen reads all dead letters first, because the work changes which ones match the filter.
func (c *letterChoice) chosen(ctx context.Context, db *storage.DB) (chosen []deadletter.Letter, unknown []uuid.UUID, err error) {
	if c.All {
		err := c.each(ctx, db, deadletter.Open, func(d deadletter.Letter) error {
			chosen = append(chosen, d)
			return nil
		})
		return chosen, nil, err
	}
	for _, id := range c.IDs {
		d, err := deadletter.FindAny(ctx, db, id)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			unknown = append(unknown, id)
		case err != nil:
			return nil, nil, err
		default:
			chosen = append(chosen, d)
		}
	}
	return chosen, unknown, nil
}

// reason is err as it is printed.
func reason(err error) error {
	var r *tenant.Refusal
	if errors.As(err, &r) {
		return errors.New(r.Detail)
	}
	return err
}

// asOperator acts in a tenant, for whoever has the operator's login to the database.
func asOperator(ctx context.Context, id uuid.UUID) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: "operator", Role: tenant.Admin})
}

type deadLettersRetryCommand struct{ letterChoice }

// Run implements the command.
func (c *deadLettersRetryCommand) Run(ctx context.Context) error {
	return c.run(ctx, func(d *deadletter.Service) letterWork {
		return letterWork{"retry", "retried", func(ctx context.Context, id uuid.UUID) error {
			_, err := d.Retry(ctx, id)
			return err
		}}
	})
}

type deadLettersDiscardCommand struct{ letterChoice }

// Run implements the command.
func (c *deadLettersDiscardCommand) Run(ctx context.Context) error {
	return c.run(ctx, func(d *deadletter.Service) letterWork { return letterWork{"discard", "discarded", d.Discard} })
}
