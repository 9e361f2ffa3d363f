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
	soakTime    = 20 * time.Second // in which faults are injected
)

// A fault kills something at a moment and brings it back later.
type fault struct {
	at, away time.Duration
	target   string
	which    int // worker
}

func (b fault) String() string {
	return fmt.Sprintf("%s: %s %d for %s", b.at.Round(time.Millisecond), b.target, b.which, b.away.Round(time.Millisecond))
}

// faults are what happens under a seed, in order of time.
func faults(random *rand.Rand) (all []fault) {
	at := time.Duration(0)
	for range soakBlows {
		at += time.Duration(random.Int64N(int64(2 * soakTime / soakBlows)))
		all = append(all, fault{
			at: at, away: time.Duration(random.Int64N(int64(2 * time.Second))),
			target: []string{"worker", "frozen worker", "child", "clamd", "S3", "Postgres", "worker, in order"}[random.IntN(7)],
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
			soak(newInstallation(t, true), rand.New(rand.NewPCG(seed, 1)))
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

func soak(inst *installation, random *rand.Rand) {
	inst.t.Helper()
	plan := faults(random)
	inst.t.Logf("plan: %v", plan)
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
			pause(inst.t.Context(), time.Until(began.Add(b.at)))
			turn.Lock() // a second fault waits for the first to be over
			defer turn.Unlock()
			inst.inject(b)
		})
	}
	var wanted []expected
	for i := range soakUploads {
		e := []expected{
			{content: inst.photo, status: "completed", thumbnails: 3},
			{content: []byte("hormigón\n"), status: "completed"},
			{content: []byte(stack.EICAR()), status: "failed"},
		}[[]int{0, 0, 0, 0, 1, 2}[random.IntN(6)]]
		pause(inst.t.Context(), time.Until(began.Add(time.Duration(i)*soakTime/soakUploads)))
		e.id = inst.sendSome(e.content)
		wanted = append(wanted, e)
	}
	stack.Wait(inst.t, "end of the blows", &all)
	for _, e := range wanted {
		inst.await(`select status in ('completed', 'failed') from uploads where id = $1`, e.id)
	}
	inst.await(`select bool_and(finalized_at is not null) from river_job where kind = 'process_upload'`)
	for _, e := range wanted {
		inst.checkExpected(e)
	}
	for _, w := range inst.workers {
		inst.must(w.process.Stop())
	}
	if dirs, err := os.ReadDir(inst.temp); err != nil || len(dirs) > 0 {
		inst.t.Errorf("left on disk: %v, %v", dirs, err)
	}
}

// key is the same for faults that must not meet.
func (b fault) key() string {
	if strings.Contains(b.target, "worker") || b.target == "child" {
		return fmt.Sprint("worker", b.which)
	}
	return b.target
}

// inject kills and restarts what the fault names.
func (inst *installation) inject(b fault) {
	w := inst.workers[b.which]
	switch b.target {
	case "worker":
		inst.kill(w)
		pause(inst.t.Context(), b.away)
		inst.startAgain(w)
	case "worker, in order":
		if err := w.process.Stop(); err != nil {
			inst.t.Logf("%s after SIGTERM: %v", w.name, err) // Postgres may be away
		}
		w.printed = append(w.printed, w.process.Output())
		inst.startAgain(w)
	case "frozen worker":
		_ = w.process.Signal(syscall.SIGSTOP)
		pause(inst.t.Context(), 3*b.away) // for some longer than until it is thought lost
		_ = w.process.Signal(syscall.SIGCONT)
	case "child":
		for _, pid := range children(w.process.Pid()) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	case "clamd":
		inst.Clamd.Kill()
		pause(inst.t.Context(), b.away)
		inst.try(inst.Clamd.Restart)
	case "S3":
		inst.away.Down()
		pause(inst.t.Context(), b.away)
		inst.try(func(context.Context) error { return inst.away.Up() })
	case "Postgres":
		inst.Postgres.Kill()
		pause(inst.t.Context(), b.away)
		inst.try(inst.Postgres.Restart)
	}
}

func (inst *installation) try(restore func(context.Context) error) {
	if err := restore(stack.Context(inst.t)); err != nil {
		inst.t.Errorf("the harness cannot mend what it broke: %v", err)
	}
}

// startAgain starts a worker again and again until it stays: Postgres or S3 may be away, as Kubernetes finds it.
func (inst *installation) startAgain(w *worker) {
	ctx := stack.Context(inst.t)
	for ctx.Err() == nil {
		p, err := stack.Start(inst.config(w))
		if err != nil {
			inst.t.Error(err)
			return
		}
		w.process = p
		if err := p.WaitForLog(ctx, "msg=working"); err == nil {
			return
		}
		pause(ctx, 100*time.Millisecond)
	}
	inst.t.Errorf("%s does not stay for %s", w.name, stack.Patience)
}

// expected is what must have become of an upload.
type expected struct {
	id         string
	content    []byte
	status     string
	thumbnails int
}

// checkExpected checks one end, which is in the timeline once, with its thumbnails and no others. A worker that is killed three times with an upload makes
// it a dead letter, and only that may stand in for the end that belongs to it.
func (inst *installation) checkExpected(e expected) {
	inst.t.Helper()
	got, err := ask[string](inst, `
		select concat_ws(' ', status, failure_reason, (select count(*) from timeline where upload_id = $1 and event in ('completed', 'failed')),
			(select count(*) from thumbnails where upload_id = $1), (select count(*) from step_results where upload_id = $1))
		from uploads where id = $1`, e.id)
	inst.must(err)
	attempts, err := ask[int](inst, `select cardinality(errors) from river_job where args->>'upload_id' = $1 and state = 'discarded'
		union all select 0 limit 1`, e.id)
	inst.must(err)
	want := fmt.Sprintf("%s 1 %d 0", e.status, e.thumbnails)
	if e.status == "failed" {
		want = "failed infected 1 0 0"
	}
	if attempts == 3 && strings.HasPrefix(got, "failed dead_lettered 1 0") {
		inst.t.Logf("%s is a dead letter after three lost attempts", e.id)
		return
	}
	stack.Want(inst.t, got, want, "%s", e.id)
	list, err := inst.S3.Client("").ListObjectsV2(stack.Context(inst.t), &s3.ListObjectsV2Input{Bucket: &inst.Bucket})
	inst.must(err)
	thumbnails := 0
	for _, o := range list.Contents {
		if strings.Contains(*o.Key, e.id) && !strings.HasSuffix(*o.Key, "/") && !strings.Contains(*o.Key, "original") {
			thumbnails++
		}
	}
	stack.Want(inst.t, thumbnails, e.thumbnails, "thumbnails of %s in S3", e.id)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
