package tramo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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

// find returns all dead letters that match the filter and the state, newest first.
func (f letterFilter) find(ctx context.Context, db *storage.DB, state deadletter.State) ([]deadletter.Letter, error) {
	owner := uuid.Nil
	if f.Tenant != "" {
		named, err := tenantsNamed(ctx, db, f.Tenant)
		if err != nil {
			return nil, err
		}
		owner = named[0].ID
	}
	return deadletter.ListAll(ctx, db, owner, deadletter.Page{Limit: math.MaxInt32, State: state, Step: f.Step, Since: f.Since.Time})
}

type deadLettersListCommand struct {
	operator
	letterFilter
	State string `env:"-" default:"open" enum:"open,retried,discarded,settled,all" help:"Dead letters in this state only: open, retried, discarded, settled or all."`
	JSON  bool   `name:"json" env:"-" help:"Print one JSON object a line, with the whole error."`
}

// Run implements the command.
func (c *deadLettersListCommand) Run(ctx context.Context, db *storage.DB) error {
	state := deadletter.State(c.State)
	if c.State == "all" {
		state = ""
	}
	found, err := c.find(ctx, db, state)
	switch {
	case err != nil:
		return err
	case c.JSON:
		return printLettersJSON(found)
	case len(found) == 0:
		fmt.Fprintln(os.Stdout, "There are no dead letters.")
		return nil
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tTENANT\tUPLOAD\tFAILED\tSTATE\tSTEP\tATTEMPTS\tERROR")
	for _, d := range found {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", d.ID, d.Tenant, d.Upload, d.FailedAt.UTC().Format(time.RFC3339), d.State, d.Step,
			d.Attempts, short(d.Error))
	}
	return table.Flush()
}

func printLettersJSON(found []deadletter.Letter) error {
	out := json.NewEncoder(os.Stdout)
	for _, d := range found {
		err := out.Encode(struct {
			Tenant uuid.UUID `json:"tenant_id"`
			deadletter.Letter
		}{d.Tenant, d})
		if err != nil {
			return err
		}
	}
	return nil
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
	operator
	Log telemetry.LogConfig `embed:""`
	letterFilter
	IDs    []uuid.UUID `arg:"" optional:"" name:"id" help:"Ids of dead letters, as tramo dead-letters list prints them."`
	All    bool        `env:"-" help:"All open dead letters that --tenant, --step and --since select."`
	DryRun bool        `env:"-" help:"Only print which dead letters are selected."`
}

// Check implements [cli.Checker].
func (c *letterChoice) Check() error {
	if c.All == (len(c.IDs) > 0) || !c.All && c.letterFilter != (letterFilter{}) {
		return errors.New("ID, --all: name dead letters by their ids, or give --all, with --tenant, --step and --since if wanted")
	}
	return nil
}

// run does something with each chosen dead letter and prints the result, such as "retried" or "would retry". After a failure
// it goes on with the others; the command fails in the end.
func (c *letterChoice) run(ctx context.Context, db *storage.DB, does, did string, do func(*deadletter.Service, context.Context, uuid.UUID) error) error {
	log := telemetry.NewLogger(os.Stderr, c.Log)
	q, err := queue.New(db, log)
	if err != nil {
		return err
	}
	letters := &deadletter.Service{DB: db, Queue: q, Uploaded: prometheus.NewCounter(prometheus.CounterOpts{}), Log: log}
	chosen, failed, err := c.choose(ctx, db)
	if err != nil {
		return err
	}
	done := 0
	for _, d := range chosen {
		if c.DryRun {
			fmt.Fprintf(os.Stdout, "%s: would %s upload %s of tenant %s\n", d.ID, does, d.Upload, d.Tenant)
			continue
		}
		if err := do(letters, asOperator(ctx, d.Tenant), d.ID); err != nil {
			failed++
			fmt.Fprintf(os.Stdout, "%s: not %s: %v\n", d.ID, did, reason(err))
			continue
		}
		done++
		fmt.Fprintf(os.Stdout, "%s: %s upload %s of tenant %s\n", d.ID, did, d.Upload, d.Tenant)
	}
	fmt.Fprintf(os.Stdout, "%d found, %d %s, %d failed\n", len(chosen), done, did, failed)
	if failed > 0 {
		return fmt.Errorf("%d dead letters could not be %s", failed, did)
	}
	return nil
}

// choose reads all dead letters, because what is done with one changes which match the filter. It prints the ids that none
// has, and returns their number.
func (c *letterChoice) choose(ctx context.Context, db *storage.DB) (chosen []deadletter.Letter, unknown int, err error) {
	if c.All {
		chosen, err = c.find(ctx, db, deadletter.Open)
		return chosen, 0, err
	}
	for _, id := range c.IDs {
		d, err := deadletter.FindAny(ctx, db, id)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			unknown++
			fmt.Fprintf(os.Stdout, "%s: there is no such dead letter\n", id)
		case err != nil:
			return nil, 0, err
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
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: tenant.Operator, Role: tenant.Admin})
}

type deadLettersRetryCommand struct{ letterChoice }

// Run implements the command.
func (c *deadLettersRetryCommand) Run(ctx context.Context, db *storage.DB) error {
	return c.run(ctx, db, "retry", "retried", func(s *deadletter.Service, ctx context.Context, id uuid.UUID) error {
		_, err := s.Retry(ctx, id)
		return err
	})
}

type deadLettersDiscardCommand struct{ letterChoice }

// Run implements the command.
func (c *deadLettersDiscardCommand) Run(ctx context.Context, db *storage.DB) error {
	return c.run(ctx, db, "discard", "discarded", (*deadletter.Service).Discard)
}
