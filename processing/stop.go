package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/riverqueue/river/rivertype"
)

// isCutOff reports whether ctx, a job's, ended because the pool stops: that is no fault of the job's.
func (p *Pool) isCutOff(ctx context.Context) bool {
	return p.stopping.Err() != nil && errors.Is(ctx.Err(), context.Canceled) &&
		!errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely)
}

// handBack gives the job to whoever comes next, at once and with all the attempts that it had: so River does if a job of a
// stopped client says that it was cancelled. What the steps found is kept.
func (p *Pool) handBack(ctx context.Context, log *slog.Logger, err error) error {
	log.InfoContext(ctx, "the worker stops; the job is handed back", slog.Any("err", err))
	p.metrics.putBack.WithLabelValues(putBackStop).Inc()
	return fmt.Errorf("the worker stops: %w", context.Canceled)
}
