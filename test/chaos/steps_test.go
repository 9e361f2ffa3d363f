package chaos

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// The steps that an upload is made of: transactions, which a statement in them tells from others, and requests to S3.
const (
	admits    = "admit"     // which also takes the lease for content
	takes     = "take"      // the lease of an upload that exists
	reserves  = "reserve"   // the number of a part
	moves     = "move"      // the offset
	finishes  = "finish"    // which also moves the offset and gives the lease back
	givesBack = "give back" // the lease alone
	looks     = "look"      // at an upload that nobody holds, for a HEAD

	puts      = "PutObject"
	putsPart  = "UploadPart"
	completes = "CompleteMultipartUpload"
)

// marks are what only a transaction's SQL contains; of one that has several, the first counts.
var marks = []struct{ step, sql string }{
	{finishes, "uploaded_at = now()"},
	{admits, "insert into uploads "},
	{takes, "insert into upload_leases as "},
	{reserves, "next_part = next_part + 1"},
	{moves, "update contents set received"},
	{givesBack, "delete from upload_leases"},
	{looks, "not exists (select from upload_leases"},
}

func atS3(step string) bool { return step == puts || step == putsPart || step == completes }

// stepOf returns the step that a statement, or all statements of a transaction, belong to; "" for none of these.
func stepOf(sql string) string {
	for _, m := range marks {
		if strings.Contains(sql, m.sql) {
			return m.step
		}
	}
	return ""
}

// What can happen to a replica at a moment of a step.
const (
	loseConnection = "cut"       // the connection that it uses for the step
	terminate      = "terminate" // Postgres' end of it: pg_terminate_backend
	hold           = "hold"      // the step waits
	freezeAt       = "freeze"    // and so does the whole server
	silence        = "silence"   // and so does all between the server and Postgres, its heartbeats included
	killAt         = "kill -9"
)

// A stepPlan is something that happens at a moment of a step, of some replica: to those from number first to first+count-1.
type stepPlan struct {
	replica      int
	step         string
	moment       stack.PostgresMoment // of a request to S3: asking is before S3 hears of it, committed after S3 has done it
	first, count int
	does         string
	length       time.Duration // of what lasts
	rival        bool          // meanwhile another client asks the other replica for the same upload, and goes on with it
	reconcile    bool          // what lasts ends with a reconciler, for which nothing is too young
}

// drawStep prefers what makes an upload true, and moments at which others can take it over.
func drawStep(r *rand.Rand) stepPlan {
	p := stepPlan{
		replica: r.IntN(replicas),
		step: []string{
			finishes, finishes, finishes, finishes, admits, admits, moves, moves, moves, reserves, reserves, puts, puts, putsPart, completes,
			takes, givesBack, looks,
		}[r.IntN(18)],
		moment: []stack.PostgresMoment{stack.Asking, stack.Committing, stack.Committed}[r.IntN(3)],
		first:  1 + r.IntN(2),
		count:  1 + r.IntN(2),
		does:   []string{loseConnection, loseConnection, terminate, terminate, hold, freezeAt, freezeAt, freezeAt, silence, killAt}[r.IntN(10)],
		rival:  r.IntN(2) == 0,
	}
	if atS3(p.step) && p.moment == stack.Committing {
		p.moment = stack.Committed
	}
	switch p.does {
	case hold:
		p.length = between(r, 100*time.Millisecond, 2*leaseTTL)
	case freezeAt, silence:
		p.count, p.length = 1, between(r, leaseTTL+500*time.Millisecond, 3*leaseTTL)
		p.reconcile = !p.rival || r.IntN(3) == 0
	case killAt:
		p.count, p.length = 1, between(r, 0, time.Second)
	}
	return p
}

func (p stepPlan) String() string {
	return fmt.Sprintf("%s replica %d, %s %s, %d from number %d, lasts %s, rival %v, reconciler %v",
		p.does, p.replica, p.moment, p.step, p.count, p.first, p.length, p.rival, p.reconcile)
}

// A saboteur does what a plan says at the moments of steps.
type saboteur struct {
	plan    []stepPlan
	site    *site
	journal *journal
	rival   func(upload string, replica int) // sends an upload once more
	ctx     context.Context                  // of the run

	mu   sync.Mutex
	seen map[string]int // how many moments there were, by replica, step and moment
	done map[string]int // what was done, by step, moment and kind
	over bool
	busy sync.WaitGroup
}

// begin watches the replicas of a site. A saboteur is to be ended.
func (b *saboteur) begin() {
	b.seen, b.done = map[string]int{}, map[string]int{}
	for i, r := range b.site.replicas {
		r.postgres.Fault(func(m stack.PostgresMessage) stack.PostgresFault { return b.atPostgres(i, m) })
		r.s3.Fault(func(kind string, _ int) stack.Fault { return b.atS3(i, kind) })
	}
}

// missed returns the moments that there were not.
func (b *saboteur) missed() (missed []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, step := range []string{admits, takes, reserves, moves, finishes, givesBack, looks, puts, putsPart, completes} {
		for _, moment := range []stack.PostgresMoment{stack.Asking, stack.Committing, stack.Committed} {
			seen := 0
			for i := range b.site.replicas {
				seen += b.seen[keyOf(i, step, moment)]
			}
			if seen == 0 && (!atS3(step) || moment != stack.Committing) {
				missed = append(missed, fmt.Sprint(moment, " ", step))
			}
		}
	}
	return missed
}

func keyOf(replica int, step string, moment stack.PostgresMoment) string {
	return fmt.Sprint(replica, step, moment)
}

// end waits until nothing is held any more.
func (b *saboteur) end() {
	for _, r := range b.site.replicas {
		r.postgres.Fault(nil)
	}
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	b.busy.Wait()
}

// next counts a moment and returns what is to happen at it.
func (b *saboteur) next(replica int, step string, moment stack.PostgresMoment) (p stepPlan, happens bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := keyOf(replica, step, moment)
	b.seen[key]++
	n := b.seen[key]
	i := slices.IndexFunc(b.plan, func(p stepPlan) bool {
		return p.replica == replica && p.step == step && p.moment == moment && n >= p.first && n < p.first+p.count
	})
	if i < 0 || b.over {
		return p, false
	}
	b.done[fmt.Sprintf("%s %s: %s", b.plan[i].moment, step, b.plan[i].does)]++
	return b.plan[i], true
}

// goes runs do unless the run is over, and end waits for it.
func (b *saboteur) goes(do func()) {
	b.mu.Lock()
	over := b.over
	if !over {
		b.busy.Add(1)
	}
	b.mu.Unlock()
	if !over {
		defer b.busy.Done()
		do()
	}
}

func (b *saboteur) atPostgres(replica int, m stack.PostgresMessage) stack.PostgresFault {
	step := stepOf(m.SQL)
	if step == "" {
		return stack.PostgresFault{}
	}
	p, happens := b.next(replica, step, m.Moment)
	if !happens {
		return stack.PostgresFault{}
	}
	return stack.PostgresFault{
		Cut:  p.does == loseConnection || p.does == killAt,
		Hold: func() { b.goes(func() { b.happen(p, m.Backend, func() string { return b.concerned(m.Arguments) }) }) },
	}
}

// atS3 is what happens to a request of a replica.
func (b *saboteur) atS3(replica int, kind string) stack.Fault {
	if !atS3(kind) {
		return stack.Fault{}
	}
	for _, moment := range []stack.PostgresMoment{stack.Asking, stack.Committed} {
		p, happens := b.next(replica, kind, moment)
		if !happens {
			continue
		}
		f := stack.Fault{After: moment == stack.Committed, Cut: p.does == loseConnection || p.does == killAt}
		if f.After {
			f.Change = func(res *http.Response) {
				b.goes(func() { b.happen(p, 0, func() string { return b.concerned(idsIn(res.Request.URL.Path)) }) })
			}
		} else {
			f.Hold = func() { b.goes(func() { b.happen(p, 0, func() string { return "" }) }) }
		}
		return f
	}
	return stack.Fault{}
}

// idsIn returns the ids in a key of S3, as Postgres gets them.
func idsIn(key string) (ids []byte) {
	for _, element := range strings.Split(key, "/") {
		if id, err := hex.DecodeString(strings.ReplaceAll(element, "-", "")); err == nil && len(id) == 16 {
			ids = append(ids, id...)
		}
	}
	return ids
}

// concerned returns the name of the upload whose client_id or id is among arguments; "" if there is none.
func (b *saboteur) concerned(arguments []byte) string {
	ctx, cancel := context.WithTimeout(b.ctx, time.Second)
	defer cancel()
	if conn, err := b.site.connect(ctx); err == nil { // else Postgres is restarted
		defer conn.Close(ctx)
		rows, err := conn.Query(ctx, "select client_id, uuid_send(id) from uploads where client_id is not null")
		if err == nil {
			var name string
			var id []byte
			found := ""
			_, _ = pgx.ForEachRow(rows, []any{&name, &id}, func() error { // a broken connection finds none
				if bytes.Contains(arguments, id) || bytes.Contains(arguments, []byte(name+".jpg")) {
					found = name
				}
				return nil
			})
			return found
		}
	}
	return ""
}

// happen does what the plan says while the step is held.
func (b *saboteur) happen(p stepPlan, backend uint32, upload func() string) {
	r := b.site.replicas[p.replica]
	b.journal.fault("%s", p)
	if p.rival {
		if name := upload(); name != "" {
			b.rival(name, 1-p.replica)
		}
	}
	switch p.does {
	case loseConnection:
		r.severed.Store(true)
	case terminate:
		r.severed.Store(true)
		if p.moment == stack.Committing { // it may be committed or not
			b.busy.Go(func() { b.terminate(backend) })
		} else {
			b.terminate(backend)
		}
	case hold:
		pause(b.ctx, p.length)
	case freezeAt:
		b.freeze(r, p)
	case silence:
		r.severed.Store(true)
		r.toPostgres.stall()
		pause(b.ctx, p.length)
		if p.reconcile {
			b.reconcile()
		}
		r.toPostgres.resume()
	case killAt:
		if r.mu.TryLock() { // else another fault has it
			r.kill()
			b.busy.Go(func() {
				defer r.mu.Unlock()
				pause(b.ctx, p.length)
				if err := r.start(b.ctx); err != nil {
					b.journal.violate("", "%s: %v", p, err)
				}
			})
		}
	}
	b.journal.fault("%s: over", p)
}

func (b *saboteur) freeze(r *replica, p stepPlan) {
	if !r.mu.TryLock() {
		return // another fault has it
	}
	defer r.mu.Unlock()
	err := r.freeze(b.ctx, p.length, func() {
		if p.reconcile {
			b.reconcile()
		}
	})
	if err != nil {
		b.journal.violate("", "%s: %v", p, err)
	}
}

// reconcile runs a reconciler. What it cannot do while faults go on, the last one does.
func (b *saboteur) reconcile() {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	_, err := b.site.Tramo(ctx, "reconcile", "--grace", "0s")
	b.journal.fault("reconciled; %v", err)
}

func (b *saboteur) terminate(backend uint32) {
	if backend == 0 { // a request to S3
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Second)
	defer cancel()
	if conn, err := b.site.connect(ctx); err == nil { // else Postgres is restarted
		_, _ = conn.Exec(ctx, "select pg_terminate_backend($1)", int32(backend)) // it may have gone
		conn.Close(ctx)
	}
}
