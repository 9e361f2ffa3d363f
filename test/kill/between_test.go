package kill

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// Between are moments between the transactions of a worker that stores nothing on the way.
var between = []struct {
	moment stack.PostgresMoment
	mark   string // in the SQL of the transaction
	lost   int    // attempts
}{
	{stack.Asking, "status = 'processing'", 1},    // the job is taken, and nothing else
	{stack.Committed, "status = 'processing'", 1}, // the attempt has begun
	{stack.Committing, "status = 'completed'", 1}, // all is done, and nothing is recorded
	{stack.Committed, "status = 'completed'", 0},  // all is recorded, and the worker has not been told
}

// Kill -9 a worker between two of its transactions: the upload comes to one end, with one set of thumbnails, and only an
// attempt that has not ended is lost.
func TestKillBetweenTransactions(t *testing.T) {
	t.Parallel()
	inst := newInstallation(t, false, "TRAMO_SAVE_AFTER=1m")
	for _, c := range between {
		t.Run(fmt.Sprint(c.moment, " ", c.mark), func(t *testing.T) {
			inst.within(t, func() {
				reached, killed := make(chan *worker, 1), make(chan struct{})
				var once sync.Once
				for _, w := range inst.workers {
					w.postgres.Fault(func(m stack.PostgresMessage) (f stack.PostgresFault) {
						if m.Moment == c.moment && strings.Contains(m.SQL, c.mark) {
							once.Do(func() { f = stack.PostgresFault{Cut: true, Hold: func() { reached <- w; <-killed }} })
						}
						return f
					})
				}
				id := inst.send()
				w := stack.Receive(t, "worker at "+c.mark, reached)
				before := children(w.process.Pid())
				inst.kill(w)
				close(killed)
				inst.start(w)
				inst.await(`select status = 'completed' and (select bool_and(finalized_at is not null) from river_job
					where args->>'upload_id' = $1) from uploads where id = $1::uuid`, id)
				inst.checkEnd(id, false)
				inst.checkErrors(id, target{errors: c.lost, lost: c.lost})
				inst.checkThumbnails(id)
				inst.checkNothingLeft(w, before)
			})
		})
	}
}
