package hooks

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A Kind names something that should not be, in metrics, in timelines and to admins. docs/reference/reconciler.md explains each.
type Kind string

// What the reconciler finds.
const (
	KindFinishCutOff     Kind = "finish_cut_off"
	KindExpired          Kind = "expired"
	KindMissingJob       Kind = "missing_job"
	KindDeadJob          Kind = "dead_job"
	KindUnownedTail      Kind = "unowned_tail"
	KindUnownedMultipart Kind = "unowned_multipart"
	KindUnownedObject    Kind = "unowned_object"
	KindUnknownMultipart Kind = "unknown_multipart"
	KindUnknownObject    Kind = "unknown_object"
	KindLostObject       Kind = "lost_object"
	KindLostDerivative   Kind = "lost_derivative"
	KindQuotaDrift       Kind = "quota_drift"
)

// A check is one kind of disorder: where it is looked for, and how it is repaired. A repair acts on what it makes sure of
// itself, under the upload's lease or row lock; what was found may be in order by then: [storage.ErrWrongStatus].
type check struct {
	kind   Kind
	plan   string                    // what repair does, to a person
	find   iter.Seq2[Finding, error] // nil: another check of the table finds it
	repair func(context.Context, Finding) error
}

// quick are the checks over rows and over what S3 knows to be unfinished.
func (r *Reconciler) quick(ctx context.Context) []check {
	return []check{
		{KindFinishCutOff, "finish it", r.uploads(ctx, KindFinishCutOff, storage.FinishCutOff, r.StuckGrace), r.finish},
		{KindExpired, "expire it", r.uploads(ctx, KindExpired, storage.Idle, r.Expiry), r.expire},
		{KindMissingJob, "enqueue its processing", r.uploads(ctx, KindMissingJob, storage.WithoutJob, r.StuckGrace), r.enqueue},
		{KindDeadJob, "fail it", r.uploads(ctx, KindDeadJob, storage.DeadJob, r.StuckGrace), r.bury},
		{KindUnownedTail, "delete what is nobody's", r.uploads(ctx, KindUnownedTail, storage.UnownedTail, r.StuckGrace), r.dropTail},
		{KindUnownedMultipart, "abort it", r.multiparts(ctx), r.abort},
		{KindUnknownMultipart, "abort it", nil, r.deleteUnknown}, // by the listing of the one before
	}
}

// long are those that read everything.
func (r *Reconciler) long(ctx context.Context) []check {
	return []check{
		{KindQuotaDrift, "charge what its uploads come to", r.drifts(ctx), r.settleQuota},
		{KindUnownedObject, "delete it", r.inventory(ctx), r.deleteUnowned},
		{KindUnknownObject, "delete it", nil, r.deleteUnknown}, // by the inventory, as what follows
		{KindLostObject, "fail it: lost", nil, r.lose},
		{KindLostDerivative, "", nil, nil}, // always left
	}
}

// ReconcilerConfig says what the reconciler touches.
type ReconcilerConfig struct {
	Expiry      time.Duration `kong:"-"` // uploads that have received nothing for so long expire
	StuckGrace  time.Duration `name:"stuck-grace" help:"How long an upload must be stuck before it is repaired, because its finish was cut off or its job is missing."`
	OrphanGrace time.Duration `name:"orphan-grace" help:"How old an object or a multipart upload in S3 must be before it counts as orphaned, and a row before its object counts as lost."`

	DryRun        bool `kong:"-"` // change nothing
	DeleteUnknown bool `kong:"-"` // delete objects of unknown uploads
	AcceptLoss    bool `kong:"-"` // believe that objects are gone, however many
}

// DefaultReconcilerConfig is used where nothing is set.
func DefaultReconcilerConfig() ReconcilerConfig {
	return ReconcilerConfig{Expiry: object.DefaultExpiryConfig().Expiry, StuckGrace: time.Minute, OrphanGrace: time.Hour}
}

// Validate reports what is wrong with c.
func (c ReconcilerConfig) Validate() error {
	var errs []error
	if c.StuckGrace < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_STUCK_GRACE: %s is less than 0", c.StuckGrace))
	}
	if c.OrphanGrace < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_ORPHAN_GRACE: %s is less than 0", c.OrphanGrace))
	}
	return errors.Join(errs...)
}

// ReconcilerSchedule says how often workers reconcile.
type ReconcilerSchedule struct {
	Reconcile time.Duration `name:"reconcile-interval" help:"How often the reconciler looks for stuck uploads and repairs them. One worker at a time does it."`
	Inventory time.Duration `name:"inventory-interval" help:"How often the reconciler compares all uploads with all objects in S3. One worker at a time does it."`
}

// DefaultReconcilerSchedule is used where nothing is set.
func DefaultReconcilerSchedule() ReconcilerSchedule {
	return ReconcilerSchedule{Reconcile: time.Minute, Inventory: 6 * time.Hour}
}

// Validate reports what is wrong with s.
func (s ReconcilerSchedule) Validate() error {
	var errs []error
	if s.Reconcile < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_RECONCILE_INTERVAL: %s is less than 1s", s.Reconcile))
	}
	if s.Inventory < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_INVENTORY_INTERVAL: %s is less than 1s", s.Inventory))
	}
	return errors.Join(errs...)
}

// A Reconciler compares rows, objects, multipart uploads and jobs, repairs what it can and counts what it cannot. It
// may run beside any number of uploads and of other reconcilers, and can be cut off
// anywhere: the next pass goes on.
type Reconciler struct {
	ReconcilerConfig
	DB      *storage.DB // as an operator
	Bucket  *object.Bucket
	Store   *object.Store
	Locker  object.Locker
	Queue   *queue.Queue
	Uploads *Metrics
	Metrics *ReconcilerMetrics
	Report  func(Result) // hears of all that is found; nil for nobody
	Log     *slog.Logger
}

// A Finding is one thing that should not be.
type Finding struct {
	Kind        Kind
	Tenant      uuid.UUID
	Upload      uuid.UUID // the zero id where the finding is of no upload
	Key         string    // in S3; "" where it is of rows alone
	MultipartID string    // of the multipart upload under the key
	Detail      string    // to a person
	leave       decision  // why it is not to be repaired; "" to repair it
}

// A decision is why something is left as it is, to a person.
type decision string

func (d decision) Error() string { return string(d) }

// An Outcome is what became of a finding.
type Outcome string

// The outcomes.
const (
	Repaired Outcome = "repaired"
	Planned  Outcome = "planned" // a dry run would have repaired it
	Left     Outcome = "left"    // in order again, in use, or for a person to decide
	Failed   Outcome = "failed"
)

// A Result is a finding, what was to be done about it, and what became of it.
type Result struct {
	Finding
	Plan    string
	Outcome Outcome
	Reason  error // why it was left, or failed
}

// Reconcile makes the quick pass.
func (r *Reconciler) Reconcile(ctx context.Context) error {
	return r.alone(ctx, storage.ReconcileLock, func(ctx context.Context) error {
		return errors.Join(r.pass(ctx, "quick", r.quick(ctx)), r.forgetAnswers(ctx))
	})
}

// TakeInventory makes the long pass.
func (r *Reconciler) TakeInventory(ctx context.Context) error {
	return r.alone(ctx, storage.InventoryLock, func(ctx context.Context) error { return r.pass(ctx, "inventory", r.long(ctx)) })
}

func (r *Reconciler) alone(ctx context.Context, lock int64, pass func(context.Context) error) error {
	if r.DryRun {
		return pass(ctx) // which disturbs nobody
	}
	return r.DB.Alone(ctx, lock, pass)
}

// pass makes all the checks. One that fails does not keep the others from being made.
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

// A tally is what a pass knows of itself.
type tally struct {
	byKind map[Kind]check
	open   map[Kind]int // findings that it did not repair
}

// treat repairs one finding and says what became of it.
func (r *Reconciler) treat(ctx context.Context, t *tally, f Finding) {
	c := t.byKind[f.Kind]
	res := Result{Finding: f, Plan: c.plan}
	switch {
	case f.leave != "":
		res.Outcome, res.Reason = Left, f.leave
	case r.DryRun:
		res.Outcome = Planned
	default:
		res.Reason = c.repair(asOperator(ctx, f.Tenant), f)
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

// log tells of what was repaired, or failed. Of what is left, there may be any number; the pass counts it.
func (r *Reconciler) log(ctx context.Context, res Result) {
	level := slog.LevelWarn
	switch {
	case res.Outcome == Failed, res.Outcome == Repaired && res.Kind == KindLostObject:
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
		if kind == KindLostObject {
			level = slog.LevelError
		}
		r.Log.LogAttrs(ctx, level, "not repaired", slog.String("kind", string(kind)), slog.Int("findings", n))
	}
}

// forgetAnswers sweeps what was kept for requests that are repeated. It finds nothing that should not be.
func (r *Reconciler) forgetAnswers(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	_, err := r.DB.ForgetAnswers(ctx)
	return err
}

func asOperator(ctx context.Context, id uuid.UUID) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: "reconciler", Role: tenant.Admin})
}
