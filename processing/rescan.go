package processing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// RescanUser is whom the audit log names where newer signatures found something.
const RescanUser = "rescan"

const (
	rescanQueue    = "rescan" // apart from that of fresh uploads, which never wait for it
	rescanPriority = 4        // River's lowest
)

// rescanArgs name a completed upload that is to be scanned again.
type rescanArgs Args

// Kind implements [river.JobArgs].
func (rescanArgs) Kind() string { return "rescan_upload" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (rescanArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: rescanQueue, Priority: rescanPriority, MaxAttempts: MaxAttempts}
}

// EnqueueRescans has completed uploads scanned again.
func (q *Queue) EnqueueRescans(ctx context.Context, tx storage.Tx, uploads ...uuid.UUID) error {
	jobs := make([]river.InsertManyParams, len(uploads))
	for i, id := range uploads {
		jobs[i] = river.InsertManyParams{Args: rescanArgs{TenantID: tx.Tenant, UploadID: id}}
	}
	if _, err := q.client.InsertManyFastTx(ctx, tx.Tx, jobs); err != nil {
		return fmt.Errorf("enqueue rescans: %w", err)
	}
	return nil
}

// A Rescanner scans completed uploads again, which stay completed, and served, until something is found. It is a
// [Sideline].
type Rescanner struct {
	river.WorkerDefaults[rescanArgs]
	pipeline  *Pipeline
	workers   int
	busyDelay time.Duration
}

// NewRescanner makes one that scans as many uploads at a time as it has workers; 0 for none.
func NewRescanner(p *Pipeline, workers int, busyDelay time.Duration) *Rescanner {
	return &Rescanner{pipeline: p, workers: workers, busyDelay: busyDelay}
}

// Join implements [Sideline].
func (s *Rescanner) Join(workers *river.Workers, queues map[string]river.QueueConfig) {
	if s.workers == 0 {
		return
	}
	river.AddWorker(workers, s)
	queues[rescanQueue] = river.QueueConfig{MaxWorkers: s.workers, FetchPollInterval: time.Second}
}

// Work implements [river.Worker]. It may be called again for an upload that was scanned before; that changes nothing.
func (s *Rescanner) Work(ctx context.Context, job *river.Job[rescanArgs]) error {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: job.Args.TenantID, User: RescanUser, Role: tenant.Admin})
	log := s.pipeline.Log.With(slog.String("tenant_id", job.Args.TenantID.String()),
		slog.String("upload_id", job.Args.UploadID.String()), slog.Int64("job_id", job.ID))
	found, err := s.rescan(ctx, job)
	switch {
	case errors.Is(err, storage.ErrWrongStatus), errors.Is(err, storage.ErrNotFound), errors.Is(err, errTooLarge):
		log.InfoContext(ctx, "upload needs no rescan", slog.Any("err", err))
		return nil
	case errors.Is(err, errBusy):
		log.WarnContext(ctx, "a dependency does not answer; the rescan waits", slog.Any("err", err))
		return river.JobSnooze(s.busyDelay)
	case err != nil:
		log.WarnContext(ctx, "rescan failed", slog.Int("attempt", job.Attempt), slog.Any("err", err))
		return err
	case found:
		log.ErrorContext(ctx, "completed upload is infected")
	}
	return nil
}

// errTooLarge says that a policy let an upload pass that clamd does not take: it is what it was.
var errTooLarge = errors.New("upload is larger than what is scanned")

// rescan returns true if the upload is in quarantine now.
func (s *Rescanner) rescan(ctx context.Context, job *river.Job[rescanArgs]) (found bool, err error) {
	p := s.pipeline
	w := &work{attempt: &attempt{job: job.JobRow}}
	err = p.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		w.upload, err = tx.Upload(ctx, job.Args.UploadID)
		return err
	})
	if err == nil && (w.upload.Status != storage.Completed || w.upload.DeletedAt != nil) {
		err = storage.ErrWrongStatus
	}
	if err != nil {
		return false, err
	}
	w.keys = object.Keys{Tenant: job.Args.TenantID, Project: w.upload.Project, Upload: w.upload.ID}
	if w.upload.Size > p.Scans.Max {
		return false, errTooLarge
	}
	var verdict finding
	_, err = p.read(ctx, w, io.Discard, func(r io.Reader) (enough bool, err error) {
		verdict, err = p.look(ctx, w, r)
		return verdict != passes, err
	})
	if err == nil && verdict == isTooLarge {
		err = errTooLarge
	}
	if err != nil {
		return false, err
	}
	var r *rejection
	if verdict == isCondemned {
		if err := p.quarantine(ctx, w); !errors.As(err, &r) {
			return false, err
		}
	}
	defer w.moved.end()
	return r != nil, s.settle(ctx, job, w, r)
}

// settle writes the verdict and the job's completion in one transaction, if this attempt is still the one that runs.
func (s *Rescanner) settle(ctx context.Context, job *river.Job[rescanArgs], w *work, r *rejection) error {
	err := s.pipeline.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := ownAttempt(ctx, tx, job.JobRow); err != nil {
			return err
		}
		var err error
		if r != nil {
			err = w.moved.quarantine(ctx, tx, storage.Completed, r.Failure, *w.results.Scan)
		} else {
			err = tx.Rescanned(ctx, w.upload.ID, *w.results.Scan)
		}
		if err != nil {
			return err
		}
		_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx.Tx, job)
		return err
	})
	if err != nil {
		return fmt.Errorf("record rescan: %w", err)
	}
	w.moved.leave(ctx)
	if r != nil {
		s.pipeline.Metrics.outcomes.WithLabelValues(string(storage.Failed)).Inc()
	}
	return nil
}
