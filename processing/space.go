package processing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/semaphore"

	"github.com/tramo/tramo/processing/queue"
)

// errNoRoom marks the [queue.ErrUnavailable] of a download that has waited for disk space.
var errNoRoom = errors.New("no room on disk")

// spaceWait is how long a download waits for disk space before its job is requeued.
const spaceWait = time.Minute

// SpaceConfig says where downloads are kept while they are processed, and how much disk they take.
type SpaceConfig struct {
	Size int64  `name:"temp-space" type:"bytes" help:"Disk for the files that are being processed, all together. When it is full, jobs wait. An upload larger than this becomes a dead letter."`
	Dir  string `name:"temp-dir" placeholder:"DIR" help:"Directory of TRAMO_TEMP_SPACE. Default: the system's directory for temporary files."`
}

// DefaultSpaceConfig is used where nothing is set.
func DefaultSpaceConfig() SpaceConfig { return SpaceConfig{Size: 4 << 30} }

// Validate reports what is wrong with c.
func (c SpaceConfig) Validate() error {
	if c.Size < 1 {
		return fmt.Errorf("TRAMO_TEMP_SPACE: %d is not more than 0", c.Size)
	}
	return nil
}

// A Space is the disk space that all downloads of a worker share. They take it in turn, and never more than all of it together.
type Space struct {
	size  int64
	room  *semaphore.Weighted
	inUse prometheus.Gauge
}

// NewSpace makes a space of so many bytes, and registers its metrics.
func NewSpace(size int64, r prometheus.Registerer) *Space {
	f := promauto.With(r)
	f.NewGauge(prometheus.GaugeOpts{Name: "tramo_processing_temp_limit_bytes", Help: "TRAMO_TEMP_SPACE."}).Set(float64(size))
	return &Space{size: size, room: semaphore.NewWeighted(size), inUse: f.NewGauge(prometheus.GaugeOpts{
		Name: "tramo_processing_temp_bytes", Help: "Bytes of TRAMO_TEMP_SPACE that downloads have taken.",
	})}
}

// take waits for so many bytes of space and returns a function that gives them back. A download larger than the whole space fails at
// once; one that waits in vain is a [queue.ErrUnavailable]. A nil Space has no limit.
func (s *Space) take(ctx context.Context, bytes int64) (giveBack func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	if bytes > s.size {
		return nil, fmt.Errorf("an upload of %d bytes does not fit into the %d of TRAMO_TEMP_SPACE", bytes, s.size)
	}
	waiting, cancel := context.WithTimeout(ctx, spaceWait)
	defer cancel()
	if err := s.room.Acquire(waiting, bytes); err != nil {
		return nil, fmt.Errorf("%w: %w for %d bytes: %w", queue.ErrUnavailable, errNoRoom, bytes, err)
	}
	s.inUse.Add(float64(bytes))
	return func() {
		s.inUse.Sub(float64(bytes))
		s.room.Release(bytes)
	}, nil
}
