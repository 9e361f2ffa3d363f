package processing

import (
	"testing"
	"time"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// A worker that is told to stop gives a job that it cannot finish in time to another, which has it at once, with all its
// attempts and what was found.
func TestStopHandsBack(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.conf.StopTimeout, p.workers = 100*time.Millisecond, 1
	p.conf.RetryDelay = time.Hour // a retry would not come
	p.conf.BusyDelay = time.Hour  // nor would a job that waits
	s3 := newGate(t, 0)
	p.reach(t, s3.url)
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.Exec(t, `update river_job set max_attempts = 1`) // the last attempt: spent, it would be a dead letter
	stop := p.run(t)
	s3.await(t)
	stop()
	p.await(t, `select state = 'available' and attempt = 0 and errors is null and scheduled_at <= now() from river_job`)
	p.wantMetric(t, requeues, "stop", 1)
	next := p.startPeer(t, stack.Get(t, ground.S3).Endpoint())
	p.await(t, allJobs, "completed")
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
	p.job(t, 1, 0)
	next.wantMetric(t, stepTimes, "scan", 1)
}
