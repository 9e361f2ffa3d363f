package kill

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/test/stack"
)

// A target is what is killed.
type target struct {
	name    string
	at      []string
	kill    func(*installation, *worker, *hold)
	restore func(inst *installation, w *worker, id string) // starts it again, once all others go on
	// errors are how many attempts may be lost by it, and how many of them as those of a dead worker, exactly.
	errors, lost int
}

var everywhere = []string{atScan, atType, atThumbnails, atFacts, atSettle}

var targets = []target{
	{
		name: "worker", at: everywhere, errors: 1, lost: 1,
		kill:    func(inst *installation, w *worker, _ *hold) { inst.kill(w) },
		restore: func(inst *installation, w *worker, _ string) { inst.start(w) },
	},
	{
		name: "worker frozen", at: everywhere, errors: 1, lost: 1,
		kill: func(inst *installation, w *worker, _ *hold) { inst.must(w.process.Signal(syscall.SIGSTOP)) },
		restore: func(inst *installation, w *worker, id string) {
			inst.await(`select status = 'completed' from uploads where id = $1`, id)
			inst.must(w.process.Signal(syscall.SIGCONT))
			inst.until("attempt that was superseded", func() bool {
				return strings.Contains(w.process.Output(), "superseded") && strings.Contains(w.process.Output(), id)
			})
		},
	},
	{
		name: "child", at: []string{atThumbnails, atFacts}, errors: 1, // at the others none is at work
		kill: func(inst *installation, _ *worker, h *hold) {
			for _, pid := range h.children {
				inst.must(syscall.Kill(pid, syscall.SIGKILL))
			}
		},
		restore: func(*installation, *worker, string) {},
	},
	{
		name: "clamd", at: everywhere, errors: 1,
		kill:    func(inst *installation, _ *worker, _ *hold) { inst.Clamd.Kill() },
		restore: func(inst *installation, _ *worker, _ string) { inst.must(inst.Clamd.Restart(inst.t.Context())) },
	},
	{
		name: "S3", at: everywhere, errors: 1, // every connection is lost and none is taken
		kill:    func(inst *installation, _ *worker, _ *hold) { inst.away.Down() },
		restore: func(inst *installation, _ *worker, _ string) { inst.must(inst.away.Up()) },
	},
	{
		name: "Postgres", at: everywhere, errors: 1,
		kill:    func(inst *installation, _ *worker, _ *hold) { inst.Postgres.Kill() },
		restore: func(inst *installation, _ *worker, _ string) { inst.must(inst.Postgres.Restart(inst.t.Context())) },
	},
}

// Kill -9 a worker, its child, clamd, S3 and Postgres, each at each step: every upload comes to exactly one end, which is
// completed, with exactly one set of thumbnails; no step that was kept is done again, and no file or process is left.
func TestKillMatrix(t *testing.T) {
	t.Parallel()
	for _, v := range targets {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			inst := newInstallation(t, v.name == "Postgres")
			for _, place := range v.at {
				t.Run(place, func(t *testing.T) {
					inst.within(t, func() { inst.killAt(v, place) })
				})
			}
		})
	}
}

// within reports what goes wrong to a subtest while f runs.
func (inst *installation) within(t *testing.T, f func()) {
	t.Helper()
	outer := inst.t
	inst.t = t
	defer func() { inst.t = outer }()
	f()
}

// killAt kills the target while a worker stands at the place with an upload.
func (inst *installation) killAt(v target, place string) {
	inst.t.Helper()
	for range 5 {
		h := inst.hold(place)
		id := inst.send()
		w := h.reached(id)
		if w == nil {
			continue // the child ended before it was stopped; send the next photo
		}
		before := children(w.process.Pid())
		v.kill(inst, w, h)
		h.release()
		v.restore(inst, w, id)
		inst.await(`select status in ('completed', 'failed') and (select bool_and(finalized_at is not null) from river_job
			where args->>'upload_id' = $1) from uploads where id = $1::uuid`, id)
		inst.checkEnd(id, v.name == "Postgres")
		inst.checkErrors(id, v)
		inst.checkThumbnails(id)
		inst.checkNothingLeft(w, before)
		return
	}
	inst.t.Fatal("no child could be held")
}

// checkEnd checks that there is one end in the row and in the timeline, one job, and no stored step; each step is in the
// timeline once, unless Postgres lost it in a crash, which what a step found need not survive.
func (inst *installation) checkEnd(id string, forgetful bool) {
	inst.t.Helper()
	got, err := ask[string](inst, `
		select concat_ws(', ', u.status,
			(select string_agg(state::text, '+') from river_job where args->>'upload_id' = u.id::text),
			(select count(*) from timeline where upload_id = u.id and event in ('completed', 'failed')) || ' ends',
			(select count(*) from step_results where upload_id = u.id) || ' kept')
		from uploads u where id = $1`, id)
	inst.must(err)
	stack.Want(inst.t, got, "completed, completed, 1 ends, 0 kept", "upload")
	whole, err := ask[string](inst, `
		select string_agg(event, ' ' order by seq) from timeline where upload_id = $1 and event in ('type', 'facts', 'completed')`, id)
	inst.must(err)
	whole = strings.ReplaceAll(whole, "facts facts", "facts") // one that failed is in it, and so is its repetition
	if told := strings.TrimPrefix(whole, "type "); told != "facts completed" || told == whole && !forgetful {
		inst.t.Errorf("the timeline tells of %q", whole)
	}
}

// checkErrors checks that only the attempts are lost that the kill explains.
func (inst *installation) checkErrors(id string, v target) {
	inst.t.Helper()
	errs, err := ask[[]string](inst, `
		select array(select e->>'error' from unnest(errors) e) from river_job where args->>'upload_id' = $1`, id)
	inst.must(err)
	lost := 0
	for _, e := range errs {
		if e == "worker lost" {
			lost++
		}
	}
	if len(errs) > v.errors || lost != v.lost {
		inst.t.Errorf("%d attempts were lost, %d of them as a dead worker's; want at most %d, and %d: %q", len(errs), lost, v.errors, v.lost, errs)
	}
}

// checkThumbnails: the three thumbnails are in the rows and in S3, and nothing else is there but the original.
func (inst *installation) checkThumbnails(id string) {
	inst.t.Helper()
	rows, err := ask[[]string](inst, `
		select array(select object_key || ' ' || bytes from thumbnails where upload_id = $1
			union all select object_key || ' ' || size from uploads where id = $1)`, id)
	inst.must(err)
	var objects []string
	list, err := inst.S3.Client("").ListObjectsV2(stack.Context(inst.t), &s3.ListObjectsV2Input{Bucket: &inst.Bucket})
	inst.must(err)
	for _, o := range list.Contents {
		if key := aws.ToString(o.Key); strings.Contains(key, id) && !strings.HasSuffix(key, "/") {
			objects = append(objects, fmt.Sprintf("%s %d", key, aws.ToInt64(o.Size)))
		}
	}
	slices.Sort(rows)
	slices.Sort(objects)
	if len(rows) != 4 || !slices.Equal(rows, objects) {
		inst.t.Errorf("the rows know of\n%s\nand S3 has\n%s", strings.Join(rows, "\n"), strings.Join(objects, "\n"))
	}
}

// checkNothingLeft checks that no file of any worker is left, no directory of a killed one, and none of its processes. A
// running worker keeps its children.
func (inst *installation) checkNothingLeft(w *worker, before []int) {
	inst.t.Helper()
	inst.until("end of the children", func() bool {
		kept := children(w.process.Pid())
		return !slices.ContainsFunc(before, func(pid int) bool { return alive(pid) && !slices.Contains(kept, pid) })
	})
	if files := inst.tempFiles(); len(files) > 0 {
		inst.t.Errorf("left on disk: %v", files)
	}
}
