package processing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A Rescanner scans completed uploads again, which stay completed, and served, until something is found.
type Rescanner struct{ *Pipeline }

// Work implements [queue.Worker].
func (s Rescanner) Work(ctx context.Context, job *queue.Job) error {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: job.Tenant, User: quarantine.RescanUser, Role: tenant.Admin})
	log := s.Log.With(slog.String("tenant_id", job.Tenant.String()), slog.String("upload_id", job.Upload.String()), slog.Int64("job_id", job.ID))
	infected, err := s.rescan(ctx, job)
	switch {
	case errors.Is(err, storage.ErrWrongStatus), errors.Is(err, storage.ErrNotFound), errors.Is(err, errTooLarge):
		log.InfoContext(ctx, "upload needs no rescan", slog.Any("err", err))
		return nil
	case err != nil:
		return err
	case infected:
		log.ErrorContext(ctx, "completed upload is infected")
	}
	return nil
}

// Failed implements [queue.Worker]. An upload that could not be scanned again stays what it is.
func (Rescanner) Failed(context.Context, *queue.Job, error) error { return nil }

// errTooLarge says that a policy let an upload pass that clamd does not take: it is what it was.
var errTooLarge = errors.New("upload is larger than what is scanned")

// rescan returns true if the upload is in quarantine now.
func (s Rescanner) rescan(ctx context.Context, job *queue.Job) (infected bool, err error) {
	w := &work{attempt: newAttempt(job)}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		w.upload, err = tx.Upload(ctx, job.Upload)
		return err
	})
	if err == nil && (w.upload.Status != storage.Completed || w.upload.DeletedAt != nil) {
		err = storage.ErrWrongStatus
	}
	if err != nil {
		return false, err
	}
	w.keys = object.Keys{Tenant: job.Tenant, Project: w.upload.Project, Upload: w.upload.ID}
	if w.upload.Size > s.Scans.Max {
		return false, errTooLarge
	}
	var found decision
	_, err = s.read(ctx, w, io.Discard, func(r io.Reader) (enough bool, err error) {
		found, err = s.look(ctx, w, r)
		return found != passes, err
	})
	if err == nil && found == isTooLarge {
		err = errTooLarge
	}
	if err != nil {
		return false, err
	}
	if found == isInfected {
		if w.moved, err = s.mover().BeginQuarantine(ctx, w.upload, w.keys, w.results.Scan.Failure()); err != nil {
			return false, err
		}
		defer w.moved.End(ctx)
	}
	return w.moved != nil, s.settle(ctx, w)
}

// settle writes the verdict and the job's completion in one transaction, if this attempt is still the one that runs.
func (s Rescanner) settle(ctx context.Context, w *work) error {
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := w.Fence(ctx, tx); err != nil {
			return err
		}
		var err error
		if w.moved != nil {
			err = w.moved.Quarantine(ctx, tx, storage.Completed, *w.results.Scan)
		} else {
			err = quarantine.RecordRescan(ctx, tx, w.upload.ID, *w.results.Scan)
		}
		if err != nil {
			return err
		}
		return w.Complete(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("record rescan: %w", err)
	}
	w.moved.Clean(ctx)
	if w.moved != nil {
		s.Metrics.outcomes.WithLabelValues(string(storage.Failed)).Inc()
	}
	return nil
}
