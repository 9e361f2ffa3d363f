package processing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// rescueEvery is how often a pool looks for jobs of workers that died, at the longest.
const rescueEvery = 5 * time.Second

// rescue puts back jobs of workers that died, until ctx is done. River does so too, but only after a job has run for longer
// than any may.
func (p *Pool) rescue(ctx context.Context) {
	tick := time.NewTicker(min(rescueEvery, p.LostAfter/2))
	defer tick.Stop()
	for {
		lost, err := p.Leases.PutBackLost(ctx, p.LostAfter)
		if err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "looking for lost jobs failed", slog.Any("err", err))
		}
		for _, job := range lost {
			p.mourn(ctx, job)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// mourn tells of a job whose worker was lost with its attempt. If it dies on the way, the reconciler finds the upload that
// nobody buried.
func (p *Pool) mourn(ctx context.Context, lost lease.OrphanedJob) {
	p.metrics.putBack.WithLabelValues(putBackLost).Inc()
	ctx = inTraceOf(ctx, &rivertype.JobRow{Metadata: lost.Metadata})
	log := p.log.With(slog.Int64("job_id", lost.ID), slog.String("kind", lost.Kind), slog.Int("attempt", lost.Attempt))
	log.WarnContext(ctx, "a worker died; its job is put back", slog.Bool("dead", lost.Dead))
	if lost.Kind != (Args{}).Kind() {
		return // its next pass, or its dispatcher, comes by itself
	}
	var args Args
	if err := json.Unmarshal(lost.Args, &args); err != nil {
		log.ErrorContext(ctx, "lost job not told of", slog.Any("err", err))
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), buryTime)
	defer cancel()
	ctx = asWorker(ctx, args)
	err := p.db.InTenant(ctx, func(tx storage.Tx) error { return tellOfLost(ctx, tx, lost, args) })
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrWrongStatus):
		return // it has ended, or another job works on it
	case err != nil:
		log.WarnContext(ctx, "lost job not told of", slog.String("upload_id", args.UploadID.String()), slog.Any("err", err))
		return
	}
	if lost.Dead {
		log.ErrorContext(ctx, "upload is a dead letter", slog.String("upload_id", args.UploadID.String()))
		p.metrics.outcomes.WithLabelValues(string(storage.Failed)).Inc()
	}
}

func tellOfLost(ctx context.Context, tx storage.Tx, lost lease.OrphanedJob, args Args) error {
	if lost.Dead {
		if err := tx.Confirm(ctx, args.UploadID, storage.DeadJob, 0); err != nil {
			return err
		}
		return BuryLost(ctx, tx, args.UploadID)
	}
	u, err := tx.Upload(ctx, args.UploadID)
	if err != nil {
		return err
	}
	if u.Status != storage.Uploaded && u.Status != storage.Processing {
		return storage.ErrWrongStatus
	}
	detail := map[string]any{"attempt": lost.Attempt, "reason": "worker_lost"}
	return tx.Append(ctx, args.UploadID, storage.Entry{Event: storage.EventRetry, Detail: detail})
}

// A standDown keeps an attempt that was thought lost, and is not, from ending its job: River looks only at the job's number,
// and so would end, or put back, the attempt that runs in its place. Such an attempt waits until the job has ended.
type standDown struct {
	river.MiddlewareDefaults
	pool *Pool
}

// standDownEvery is how often it looks.
const standDownEvery = time.Second

// Work implements [rivertype.WorkerMiddleware].
func (s *standDown) Work(ctx context.Context, job *rivertype.JobRow, work func(context.Context) error) error {
	began := time.Now().Round(0) // the wall's clock, which goes on while the machine sleeps
	err := work(ctx)
	if time.Now().Round(0).Sub(began) < s.pool.LostAfter/2 {
		return err // nobody can have thought it lost
	}
	tick := time.NewTicker(standDownEvery)
	defer tick.Stop()
	for told := false; ; told = true {
		yes, lookErr := s.pool.db.Overtaken(ctx, job.ID, job.Attempt)
		switch {
		case lookErr == nil && !yes:
			return err
		case lookErr != nil && !told && ctx.Err() == nil:
			s.pool.log.WarnContext(ctx, "an attempt cannot tell whether it counts", slog.Int64("job_id", job.ID), slog.Any("err", lookErr))
		case !told:
			s.pool.log.WarnContext(ctx, "an attempt was thought lost and stands down", slog.Int64("job_id", job.ID), slog.Int("attempt", job.Attempt))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("attempt %d of job %d has been overtaken", job.Attempt, job.ID)
		}
	}
}
