package tramo

import (
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/hooks"
)

// batchSettings say what a batch may be, and what is told of it.
type batchSettings struct {
	MaxBatch     int           `default:"1000" help:"The most uploads of one POST to /api/batches; 10000 or less."`
	StalledAfter time.Duration `default:"5m" help:"An unfinished upload that has received nothing for so long is told of as stuck."`
}

func (s batchSettings) batches(m *cli.Mistakes) hooks.BatchConfig {
	c := hooks.BatchConfig{MaxUploads: s.MaxBatch, StalledAfter: s.StalledAfter}
	m.Check("TRAMO_MAX_BATCH", c.ValidateMax())
	m.Check("TRAMO_STALLED_AFTER", c.ValidateStalled())
	return c
}
