// Package processing processes an upload once its object is safe: it runs the steps, keeps their results for the next attempt, and
// records the outcome. Untrusted files are decoded in child processes that hold no credentials (package examine); cgo is confined to
// package vips, which this one never imports.
package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

// WorkersConfig says how many uploads are processed at a time.
type WorkersConfig struct {
	Workers int `name:"workers" help:"How many uploads are processed at a time. 0 for one a core, or fewer where there is less memory than TRAMO_CHILD_MEMORY for each."`
	Rescan  int `name:"rescan-workers" help:"How many uploads are scanned again at a time, besides TRAMO_WORKERS; 0 for none in this process. tramo rescan requests rescans."`

	SaveAfter time.Duration `name:"save-after" help:"How much work is done again, at most, after a worker was killed: what steps have found out is stored each time they have taken so long. 0 stores it after each step, which costs the usual photo three transactions."`
}

// DefaultWorkersConfig is used where nothing is set.
func DefaultWorkersConfig() WorkersConfig { return WorkersConfig{Rescan: 1, SaveAfter: time.Second} }

// Validate reports what is wrong with c.
func (c WorkersConfig) Validate() error {
	var errs []error
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_WORKERS: %d is less than 0", c.Workers))
	}
	if c.Rescan < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_RESCAN_WORKERS: %d is less than 0", c.Rescan))
	}
	if c.SaveAfter < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_SAVE_AFTER: %s is less than 0", c.SaveAfter))
	}
	return errors.Join(errs...)
}

// A Pipeline processes one upload from its object to its outcome.
type Pipeline struct {
	DB       *storage.DB
	Bucket   *object.Bucket
	Scanner  *clamd.Scanner
	Scans    ScanPolicy
	Examiner *examine.Examiner
	Types    mediatype.Policy
	Leases   *lease.Manager // under which objects are moved into quarantine and out of it
	TempDir  string         // where downloads go; "" for the system's
	Space    *Space         // how much of it they take; nil for no limit
	Metrics  *Metrics
	Log      *slog.Logger
	// MaxPixels is the largest image that is decoded; 0 for the renderer's default.
	MaxPixels int
	SaveAfter time.Duration // [WorkersConfig.SaveAfter]
}

// steps are run in order. Each may be run again: besides its results, it writes only objects under keys that follow from the upload.
var steps = []step{
	{storage.EventScan, (*Pipeline).scan},
	{storage.EventType, (*Pipeline).decideType},
	{storage.EventThumbnails, (*Pipeline).draw},
	{storage.EventFacts, (*Pipeline).readFacts},
}

// A step adds to a work's results. It fails the upload by returning a [rejection]. If a dependency does not answer, its error is a
// [queue.ErrUnavailable]; any other costs the job an attempt.
type step struct {
	name storage.Event // in the timeline, in metrics, and in what is kept for the next attempt
	run  func(*Pipeline, context.Context, *work) error
}

// A work is one attempt at one upload.
type work struct {
	*attempt
	upload  storage.Upload
	keys    object.Keys
	file    *os.File // the object, once a step needed it; it has no name
	release func()   // gives back its disk space
	results results
	moved   *quarantine.Move // into quarantine, if the scan found something
}

// A rejection is the error of a step that decided that the upload fails.
type rejection struct{ storage.Failure }

func (r *rejection) Error() string { return "upload fails: " + r.Reason }

func reject(reason, format string, args ...any) error {
	return &rejection{storage.Failure{Reason: reason, Detail: fmt.Sprintf(format, args...)}}
}

// An outcome is how an upload ends: its results, or why it failed.
type outcome struct {
	results results
	failure *storage.Failure
	moved   *quarantine.Move // into quarantine
}

func (o outcome) status() storage.Status {
	if o.failure != nil {
		return storage.Failed
	}
	return storage.Completed
}

func (o outcome) record(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	switch {
	case o.moved != nil:
		return o.moved.Quarantine(ctx, tx, storage.Processing, *o.results.Scan)
	case o.failure != nil:
		return fail(ctx, tx, id, *o.failure, o.results.Scan)
	}
	return complete(ctx, tx, id, o.results)
}

// process runs the steps that no earlier attempt has done. An upload that has ended is [storage.ErrWrongStatus].
// Whoever gets an outcome must end its move.
func (p *Pipeline) process(ctx context.Context, a *attempt) (outcome, error) {
	w := &work{attempt: a}
	defer w.close()
	if err := p.begin(ctx, w); err != nil {
		return outcome{}, err
	}
	w.keys = object.Keys{Tenant: a.Tenant, Project: w.upload.Project, Upload: a.Upload}
	for i, s := range steps {
		if a.kept.has(s) {
			continue
		}
		err := p.run(ctx, s, w)
		var r *rejection
		if errors.As(err, &r) {
			return outcome{results: w.results, failure: &r.Failure, moved: w.moved}, nil
		}
		if err != nil {
			return outcome{}, err
		}
		if i == len(steps)-1 {
			break // the outcome is next
		}
		a.kept.Done, a.kept.Results, a.unsaved = append(a.kept.Done, string(s.name)), w.results, true
		if time.Since(a.saved) >= p.SaveAfter {
			if err := p.inAttempt(ctx, a, func(tx storage.Tx) error { return a.save(ctx, tx) }); err != nil {
				return outcome{}, err
			}
		}
	}
	return outcome{results: w.results}, nil
}

// run times a step.
func (p *Pipeline) run(ctx context.Context, s step, w *work) error {
	defer p.time(w.attempt, s.name)()
	return s.run(p, ctx, w)
}

// begin reads the upload and what earlier attempts have kept of it.
func (p *Pipeline) begin(ctx context.Context, w *work) error {
	err := p.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if err := tx.MarkProcessing(ctx, w.Upload, w.Attempt); err != nil {
			return err
		}
		if w.upload, err = tx.Upload(ctx, w.Upload); err != nil {
			return err
		}
		w.kept, err = readStepResults(ctx, tx, w.Upload)
		return err
	})
	w.results = w.kept.Results
	return err
}

func (p *Pipeline) mover() *quarantine.Mover {
	return &quarantine.Mover{Bucket: p.Bucket, Leases: p.Leases, Log: p.Log}
}
