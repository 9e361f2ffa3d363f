// Package reconcile compares rows, objects, multipart uploads and jobs, which a crash can set apart. It repairs what it can
// and reports the rest. It never deletes what no upload is known of unless an operator says so.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A Kind is what is wrong, in metrics, in timelines and to admins. docs/reference/reconciler.md explains each.
type Kind string

// The kinds of findings.
const (
	InterruptedFinish Kind = "interrupted_finish"
	IdleUpload        Kind = "idle_upload"
	EndedUpload       Kind = "ended_upload"
	MissingJob        Kind = "missing_job"
	AbandonedJob      Kind = "abandoned_job"
	OrphanedTail      Kind = "orphaned_tail"
	OrphanedMultipart Kind = "orphaned_multipart"
	OrphanedObject    Kind = "orphaned_object"
	UnknownMultipart  Kind = "unknown_multipart"
	UnknownObject     Kind = "unknown_object"
	LostObject        Kind = "lost_object"
	LostThumbnail     Kind = "lost_thumbnail"
	QuotaDrift        Kind = "quota_drift"
)

// A check looks for one kind and repairs it. A repair confirms the finding under the upload's lease or row lock; what is in
// order by then is [storage.ErrWrongStatus].
type check struct {
	kind   Kind
	plan   string                    // what repair does, to a person
	find   iter.Seq2[Finding, error] // nil: another check of the table finds it
	repair func(context.Context, Finding) error
}

// quick are the checks over rows and over the list of multipart uploads.
func (r *Reconciler) quick(ctx context.Context) []check {
	return []check{
		{InterruptedFinish, "finish it", r.uploads(ctx, InterruptedFinish, finishCutOff, r.StuckGrace), r.finish},
		{IdleUpload, "expire it", r.uploads(ctx, IdleUpload, idle, r.Expiry), r.expire},
		{EndedUpload, "remove what S3 has of it, and refund its quota", r.ended(ctx), r.release},
		{MissingJob, "enqueue its processing", r.uploads(ctx, MissingJob, withoutJob, r.StuckGrace), r.enqueue},
		{AbandonedJob, "fail it and write its dead letter", r.uploads(ctx, AbandonedJob, jobGivenUp, r.StuckGrace), r.deadLetter},
		{OrphanedTail, "delete the tail", r.uploads(ctx, OrphanedTail, withTail, r.StuckGrace), r.dropTail},
		{OrphanedMultipart, "abort it", r.multiparts(ctx), r.abort},
		{UnknownMultipart, "abort it", nil, r.deleteUnknown}, // by the listing of the one before
	}
}

// inventory are the checks that read all uploads and all objects.
func (r *Reconciler) inventory(ctx context.Context) []check {
	return []check{
		{QuotaDrift, "charge what its uploads come to", r.drifts(ctx), r.settleQuota},
		{OrphanedObject, "delete it", r.objects(ctx), r.deleteOrphaned},
		{UnknownObject, "delete it", nil, r.deleteUnknown}, // by the walk over objects, as those that follow
		{LostObject, "fail it: lost", nil, r.lose},
		{LostThumbnail, "", nil, nil}, // never repaired
	}
}

// Config says what the reconciler touches.
type Config struct {
	Expiry      time.Duration `kong:"-"` // uploads that have received nothing for so long expire
	StuckGrace  time.Duration `name:"stuck-grace" help:"How long an upload must be stuck before it is repaired, because its finish was cut off or its job is missing."`
	OrphanGrace time.Duration `name:"orphan-grace" help:"How old an object or a multipart upload in S3 must be before it counts as orphaned, and a row before its object counts as lost."`

	DryRun        bool `kong:"-"` // change nothing
	DeleteUnknown bool `kong:"-"` // delete objects of unknown uploads
	AcceptLoss    bool `kong:"-"` // believe that objects are gone, however many
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config {
	return Config{Expiry: hooks.DefaultExpiry().Retention, StuckGrace: time.Minute, OrphanGrace: time.Hour}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.StuckGrace < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_STUCK_GRACE: %s is less than 0", c.StuckGrace))
	}
	if c.OrphanGrace < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_ORPHAN_GRACE: %s is less than 0", c.OrphanGrace))
	}
	return errors.Join(errs...)
}

// Schedule says how often workers reconcile.
type Schedule struct {
	Reconcile time.Duration `name:"reconcile-interval" help:"How often the reconciler looks for stuck uploads and repairs them. One worker at a time does it."`
	Inventory time.Duration `name:"inventory-interval" help:"How often the reconciler compares all uploads with all objects in S3. One worker at a time does it."`
}

// DefaultSchedule is used where nothing is set.
func DefaultSchedule() Schedule {
	return Schedule{Reconcile: time.Minute, Inventory: 6 * time.Hour}
}

// Validate reports what is wrong with s.
func (s Schedule) Validate() error {
	var errs []error
	if s.Reconcile < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_RECONCILE_INTERVAL: %s is less than 1s", s.Reconcile))
	}
	if s.Inventory < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_INVENTORY_INTERVAL: %s is less than 1s", s.Inventory))
	}
	return errors.Join(errs...)
}

// A Reconciler makes two passes. It may run beside any number of uploads and of other reconcilers, and can be cut off
// anywhere: the next pass goes on.
type Reconciler struct {
	Config
	DB      *storage.DB // as an operator
	Bucket  *object.Bucket
	Leases  *lease.Manager
	Finish  *hooks.Uploads // finishes uploads whose finish was cut off
	Queue   *queue.Queue
	Uploads *hooks.Metrics
	Metrics *Metrics
	Report  func(Result) // is called with each finding; may be nil
	Log     *slog.Logger
}

// A Finding is one thing that is not as it should be.
type Finding struct {
	Kind        Kind
	Tenant      uuid.UUID
	Upload      uuid.UUID // the zero id where the finding is of no upload
	Key         string    // in S3; "" for a finding in rows alone
	MultipartID string    // of the multipart upload under the key
	Detail      string    // to a person
	leave       decision  // why it is not to be repaired; "" to repair it
}

// A decision is why a finding is left unrepaired, to a person.
type decision string

func (d decision) Error() string { return string(d) }

// An Outcome is what became of a finding.
type Outcome string

// The outcomes.
const (
	Repaired Outcome = "repaired"
	Planned  Outcome = "planned" // by a dry run
	Left     Outcome = "left"    // in order again, in use, or a person has to decide
	Failed   Outcome = "failed"
)

// A Result is a finding and what became of it.
type Result struct {
	Finding
	Plan    string
	Outcome Outcome
	Reason  error // why it was left, or failed
}

// Reconcile makes the pass over rows and over the list of multipart uploads.
func (r *Reconciler) Reconcile(ctx context.Context) error {
	return r.alone(ctx, "reconcile quick", func(ctx context.Context) error {
		return errors.Join(r.pass(ctx, "quick", r.quick(ctx)), r.forgetAnswers(ctx))
	})
}

// TakeInventory makes the pass over all uploads and all objects.
func (r *Reconciler) TakeInventory(ctx context.Context) error {
	return r.alone(ctx, "reconcile inventory", func(ctx context.Context) error {
		return r.pass(ctx, "inventory", r.inventory(ctx))
	})
}

// alone runs a pass while no other process runs one of the name. A dry run disturbs nobody.
func (r *Reconciler) alone(ctx context.Context, name string, pass func(context.Context) error) error {
	if r.DryRun {
		return pass(ctx)
	}
	return r.DB.Alone(ctx, name, pass)
}

// pass makes all the checks. A check that fails does not keep the others from being made.
func (r *Reconciler) pass(ctx context.Context, name string, checks []check) error {
	t := tally{byKind: make(map[Kind]check), open: make(map[Kind]int)}
	for _, c := range checks {
		t.byKind[c.kind] = c
	}
	var errs []error
	for _, c := range checks {
		if c.find == nil {
			continue
		}
		for f, err := range c.find {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("look for %s: %w", c.kind, err))
				break
			}
			r.treat(ctx, &t, f)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !r.DryRun {
		r.Metrics.passed(name, t)
		r.logOpen(ctx, t)
	}
	return nil
}

// A tally counts what a pass has found.
type tally struct {
	byKind map[Kind]check
	open   map[Kind]int // findings that were not repaired
}

// treat repairs one finding and reports what became of it.
func (r *Reconciler) treat(ctx context.Context, t *tally, f Finding) {
	c := t.byKind[f.Kind]
	res := Result{Finding: f, Plan: c.plan}
	switch {
	case f.leave != "":
		res.Outcome, res.Reason = Left, f.leave
	case r.DryRun:
		res.Outcome = Planned
	default:
		// What goes wrong with one upload must not keep the pass from the others.
		if p := panics.Try(func() { res.Reason = c.repair(asOperator(ctx, f.Tenant), f) }); p != nil {
			res.Reason = p.AsError()
		}
		res.Outcome = outcomeOf(res.Reason)
	}
	r.Metrics.count(res)
	if res.Outcome != Repaired {
		t.open[f.Kind]++
	}
	r.log(ctx, res)
	if r.Report != nil {
		r.Report(res)
	}
}

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Repaired
	case errors.Is(err, storage.ErrWrongStatus), errors.Is(err, storage.ErrNotFound), errors.Is(err, lease.ErrHeld):
		return Left
	}
	return Failed
}

// log has findings that were repaired or that failed. There may be any number of those that are left; the pass counts them.
func (r *Reconciler) log(ctx context.Context, res Result) {
	level := slog.LevelWarn
	switch {
	case res.Outcome == Failed, res.Outcome == Repaired && res.Kind == LostObject:
		level = slog.LevelError
	case res.Outcome != Repaired:
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("kind", string(res.Kind)), slog.String("outcome", string(res.Outcome)),
		slog.String("tenant_id", res.Tenant.String()), slog.String("upload_id", res.Upload.String()),
	}
	if res.Key != "" {
		attrs = append(attrs, slog.String("key", res.Key))
	}
	if res.Reason != nil {
		attrs = append(attrs, slog.Any("err", res.Reason))
	}
	r.Log.LogAttrs(ctx, level, "reconciled", attrs...)
}

func (r *Reconciler) logOpen(ctx context.Context, t tally) {
	for kind, n := range t.open {
		level := slog.LevelWarn
		if kind == LostObject {
			level = slog.LevelError
		}
		r.Log.LogAttrs(ctx, level, "not repaired", slog.String("kind", string(kind)), slog.Int("findings", n))
	}
}

// forgetAnswers deletes old answers to requests with an idempotency key. They are no findings.
func (r *Reconciler) forgetAnswers(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	_, err := batch.ForgetAnswers(ctx, r.DB)
	return err
}

func asOperator(ctx context.Context, id uuid.UUID) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: tenant.Reconciler, Role: tenant.Admin})
}
