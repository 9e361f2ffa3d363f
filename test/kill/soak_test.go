package kill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/test/stack"
)

// What a seed decides.
const (
	soakUploads = 30
	soakBlows   = 10
	soakTime    = 20 * time.Second // in which the blows fall
)

// A blow kills something at a moment and brings it back later.
type blow struct {
	at, away time.Duration
	victim   string
	which    int // worker
}

func (b blow) String() string {
	return fmt.Sprintf("%s: %s %d for %s", b.at.Round(time.Millisecond), b.victim, b.which, b.away.Round(time.Millisecond))
}

// blows are what happens under a seed, in order of time.
func blows(random *rand.Rand) (all []blow) {
	at := time.Duration(0)
	for range soakBlows {
		at += time.Duration(random.Int64N(int64(2 * soakTime / soakBlows)))
		all = append(all, blow{
			at: at, away: time.Duration(random.Int64N(int64(2 * time.Second))),
			victim: []string{"worker", "frozen worker", "child", "clamd", "S3", "Postgres", "worker, in order"}[random.IntN(7)],
			which:  random.IntN(2),
		})
	}
	return all
}

// A crew's photos, texts and infected files are processed while all is killed, frozen and stopped at random: each comes to
// exactly one end, with what belongs to it, and in the end nothing is left on disk. TRAMO_KILL_SEEDS says how many seeds,
// TRAMO_KILL_SEED replays one.
func TestKillSoak(t *testing.T) {
	t.Parallel()
	seeds, err := chosenSeeds()
	stack.Must(t, err)
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					fmt.Printf("kill: replay: TRAMO_KILL_SEED=%d go test ./test/kill -run KillSoak\n", seed)
				}
			})
			soak(newYard(t, true), rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func chosenSeeds() (seeds []uint64, err error) {
	if s := os.Getenv("TRAMO_KILL_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		return []uint64{seed}, err
	}
	count := uint64(0)
	if s := os.Getenv("TRAMO_KILL_SEEDS"); s != "" {
		if count, err = strconv.ParseUint(s, 10, 32); err != nil {
			return nil, fmt.Errorf("TRAMO_KILL_SEEDS: %w", err)
		}
	}
	first := uint64(time.Now().Unix()) * 1000
	for i := range count {
		seeds = append(seeds, first+i)
	}
	return seeds, nil
}

func soak(y *yard, random *rand.Rand) {
	y.t.Helper()
	plan := blows(random)
	y.t.Logf("plan: %v", plan)
	var all sync.WaitGroup
	began := time.Now()
	busy := map[string]*sync.Mutex{}
	for _, b := range plan {
		key := b.key()
		if busy[key] == nil {
			busy[key] = new(sync.Mutex)
		}
		turn := busy[key]
		all.Go(func() {
			pause(y.t.Context(), time.Until(began.Add(b.at)))
			turn.Lock() // a second blow waits for the first to be over
			defer turn.Unlock()
			y.fall(b)
		})
	}
	var wanted []expected
	for i := range soakUploads {
		e := []expected{
			{content: y.photo, status: "completed", thumbnails: 3},
			{content: []byte("hormigón\n"), status: "completed"},
			{content: []byte(stack.EICAR()), status: "failed"},
		}[[]int{0, 0, 0, 0, 1, 2}[random.IntN(6)]]
		pause(y.t.Context(), time.Until(began.Add(time.Duration(i)*soakTime/soakUploads)))
		e.id = y.sendSome(e.content)
		wanted = append(wanted, e)
	}
	stack.Wait(y.t, "end of the blows", &all)
	for _, e := range wanted {
		y.await(`select status in ('completed', 'failed') from uploads where id = $1`, e.id)
	}
	y.await(`select bool_and(finalized_at is not null) from river_job where kind = 'process_upload'`)
	for _, e := range wanted {
		y.checkExpected(e)
	}
	for _, w := range y.workers {
		y.must(w.process.Stop())
	}
	if dirs, err := os.ReadDir(y.temp); err != nil || len(dirs) > 0 {
		y.t.Errorf("left on disk: %v, %v", dirs, err)
	}
}

// key is the same for blows that must not meet.
func (b blow) key() string {
	if strings.Contains(b.victim, "worker") || b.victim == "child" {
		return fmt.Sprint("worker", b.which)
	}
	return b.victim
}

// fall does what the blow says.
func (y *yard) fall(b blow) {
	w := y.workers[b.which]
	switch b.victim {
	case "worker":
		y.kill(w)
		pause(y.t.Context(), b.away)
		y.startAgain(w)
	case "worker, in order":
		if err := w.process.Stop(); err != nil {
			y.t.Logf("%s after SIGTERM: %v", w.name, err) // Postgres may be away
		}
		w.said = append(w.said, w.process.Output())
		y.startAgain(w)
	case "frozen worker":
		_ = w.process.Signal(syscall.SIGSTOP)
		pause(y.t.Context(), 3*b.away) // for some longer than until it is thought lost
		_ = w.process.Signal(syscall.SIGCONT)
	case "child":
		for _, pid := range children(w.process.Pid()) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	case "clamd":
		y.Clamd.Kill()
		pause(y.t.Context(), b.away)
		y.try(y.Clamd.Restart)
	case "S3":
		y.away.Down()
		pause(y.t.Context(), b.away)
		y.try(func(context.Context) error { return y.away.Up() })
	case "Postgres":
		y.Postgres.Kill()
		pause(y.t.Context(), b.away)
		y.try(y.Postgres.Restart)
	}
}

func (y *yard) try(mend func(context.Context) error) {
	if err := mend(stack.Context(y.t)); err != nil {
		y.t.Errorf("the harness cannot mend what it broke: %v", err)
	}
}

// startAgain starts a worker again and again until it stays: Postgres or S3 may be away, as Kubernetes finds it.
func (y *yard) startAgain(w *worker) {
	ctx := stack.Context(y.t)
	for ctx.Err() == nil {
		p, err := stack.Start(y.config(w))
		if err != nil {
			y.t.Error(err)
			return
		}
		w.process = p
		if err := p.WaitForLog(ctx, "msg=working"); err == nil {
			return
		}
		pause(ctx, 100*time.Millisecond)
	}
	y.t.Errorf("%s does not stay for %s", w.name, stack.Patience)
}

// expected is what must have become of an upload.
type expected struct {
	id         string
	content    []byte
	status     string
	thumbnails int
}

// checkExpected: one end, told once, with its thumbnails and no others. Who is killed three times with an upload in hand makes
// it a dead letter, and only that may stand in for the end that belongs to it.
func (y *yard) checkExpected(e expected) {
	y.t.Helper()
	got, err := ask[string](y, `
		select concat_ws(' ', status, failure_reason, (select count(*) from timeline where upload_id = $1 and event in ('completed', 'failed')),
			(select count(*) from thumbnails where upload_id = $1), (select count(*) from step_results where upload_id = $1))
		from uploads where id = $1`, e.id)
	y.must(err)
	attempts, err := ask[int](y, `select cardinality(errors) from river_job where args->>'upload_id' = $1 and state = 'discarded'
		union all select 0 limit 1`, e.id)
	y.must(err)
	want := fmt.Sprintf("%s 1 %d 0", e.status, e.thumbnails)
	if e.status == "failed" {
		want = "failed infected 1 0 0"
	}
	if attempts == 3 && strings.HasPrefix(got, "failed dead_lettered 1 0") {
		y.t.Logf("%s is a dead letter after three lost attempts", e.id)
		return
	}
	if got != want {
		y.t.Errorf("%s is %q, want %q", e.id, got, want)
	}
	list, err := y.S3.Client("").ListObjectsV2(stack.Context(y.t), &s3.ListObjectsV2Input{Bucket: &y.Bucket})
	y.must(err)
	thumbnails := 0
	for _, o := range list.Contents {
		if strings.Contains(*o.Key, e.id) && !strings.HasSuffix(*o.Key, "/") && !strings.Contains(*o.Key, "original") {
			thumbnails++
		}
	}
	if thumbnails != e.thumbnails {
		y.t.Errorf("S3 has %d thumbnails of %s, want %d", thumbnails, e.id, e.thumbnails)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
