package processing

import (
	"context"
	"log/slog"
	"time"

	"github.com/tramo/tramo/storage"
)

// marks are the places in a tenant's queue behind which a job comes after others: the first few of each tenant
// before all others, and so on, River's four priorities. The first mark is small because whoever sends a single photo
// waits for as many jobs of each tenant that sends thousands.
var marks = []int{4, 50, 500}

// rankEvery is how often places are counted anew, while jobs wait.
const rankEvery = time.Second

// priority is that of a job that is the tenant's last of so many, from 1.
func priority(waiting int) int {
	p := 1
	for _, mark := range marks {
		if waiting > mark {
			p++
		}
	}
	return p
}

// nextPriority is that of a job about to be enqueued for an upload that is uploaded already. Creations at the same
// time do not see each other, and what it says ages: [Pool.rank] puts it right.
func nextPriority(ctx context.Context, tx storage.Tx) (int, error) {
	waiting, err := tx.Waiting(ctx, marks[len(marks)-1]+1)
	if err != nil {
		return 0, err
	}
	return priority(waiting), nil
}

// rank keeps the priorities of waiting jobs true until ctx is done: a tenant's jobs move up as those before them are
// worked, so that none waits for ever behind the first ones of others.
func (p *Pool) rank(ctx context.Context) {
	tick := time.NewTicker(rankEvery)
	defer tick.Stop()
	for {
		if _, err := p.db.RankJobs(ctx, marks); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "ranking jobs failed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
