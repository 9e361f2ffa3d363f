package worker

import (
	"log/slog"
	"time"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

// eraseSettings say how often what is to go is removed.
type eraseSettings struct {
	EraseInterval time.Duration `default:"1m" help:"How often what was deleted long enough ago is removed, and erasures go on that were cut off. One worker at a time does it."`
}

func eraser(db *storage.DB, bucket *object.Bucket, leases *lease.Manager, log *slog.Logger) *hooks.Eraser {
	return &hooks.Eraser{DB: db, Bucket: bucket, Locker: object.Locker{Leases: leases, Log: log}, Log: log}
}
