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

// A victim is what is killed.
type victim struct {
	name string
	at   []string
	kill func(*yard, *worker, *hold)
	mend func(y *yard, w *worker, id string) // brings it back, once everybody else goes on
	// errors are how many attempts may be lost by it, and how many of them as those of a dead worker, exactly.
	errors, lost int
}

var everywhere = []string{atScan, atType, atThumbnails, atFacts, atSettle}

var victims = []victim{
	{
		name: "worker", at: everywhere, errors: 1, lost: 1,
		kill: func(y *yard, w *worker, _ *hold) { y.kill(w) },
		mend: func(y *yard, w *worker, _ string) { y.start(w) },
	},
	{
		name: "worker frozen", at: everywhere, errors: 1, lost: 1,
		kill: func(y *yard, w *worker, _ *hold) { y.must(w.process.Signal(syscall.SIGSTOP)) },
		mend: func(y *yard, w *worker, id string) {
			y.await(`select status = 'completed' from uploads where id = $1`, id)
			y.must(w.process.Signal(syscall.SIGCONT))
			y.until("attempt that was superseded", func() bool {
				return strings.Contains(w.process.Output(), "superseded") && strings.Contains(w.process.Output(), id)
			})
		},
	},
	{
		name: "child", at: []string{atThumbnails, atFacts}, errors: 1, // at the others none is at work
		kill: func(y *yard, _ *worker, h *hold) {
			for _, pid := range h.children {
				y.must(syscall.Kill(pid, syscall.SIGKILL))
			}
		},
		mend: func(*yard, *worker, string) {},
	},
	{
		name: "clamd", at: everywhere, errors: 1,
		kill: func(y *yard, _ *worker, _ *hold) { y.Clamd.Kill() },
		mend: func(y *yard, _ *worker, _ string) { y.must(y.Clamd.Restart(y.t.Context())) },
	},
	{
		name: "S3", at: everywhere, errors: 1, // every connection is lost and none is taken
		kill: func(y *yard, _ *worker, _ *hold) { y.away.Down() },
		mend: func(y *yard, _ *worker, _ string) { y.must(y.away.Up()) },
	},
	{
		name: "Postgres", at: everywhere, errors: 1,
		kill: func(y *yard, _ *worker, _ *hold) { y.Postgres.Kill() },
		mend: func(y *yard, _ *worker, _ string) { y.must(y.Postgres.Restart(y.t.Context())) },
	},
}

// Kill -9 a worker, its child, clamd, S3 and Postgres, each at each step: every upload comes to exactly one end, which is
// completed, with exactly one set of thumbnails; no step that was kept is done again, and no file or process is left.
func TestKillMatrix(t *testing.T) {
	t.Parallel()
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t, v.name == "Postgres")
			for _, place := range v.at {
				t.Run(place, func(t *testing.T) {
					y.in(t, func() { y.strike(v, place) })
				})
			}
		})
	}
}

// in makes a subtest the one that is told of what goes wrong.
func (y *yard) in(t *testing.T, f func()) {
	t.Helper()
	outer := y.t
	y.t = t
	defer func() { y.t = outer }()
	f()
}

// strike kills the victim while a worker stands at the place with an upload.
func (y *yard) strike(v victim, place string) {
	y.t.Helper()
	for range 5 {
		h := y.hold(place)
		id := y.send()
		w := h.reached(id)
		if w == nil {
			continue // the child was quicker than we; here is the next photo
		}
		before := children(w.process.Pid())
		v.kill(y, w, h)
		h.release()
		v.mend(y, w, id)
		y.await(`select status in ('completed', 'failed') and (select bool_and(finalized_at is not null) from river_job
			where args->>'upload_id' = $1) from uploads where id = $1::uuid`, id)
		y.checkEnd(id, v.name == "Postgres")
		y.checkErrors(id, v)
		y.checkThumbnails(id)
		y.checkNothingLeft(w, before)
		return
	}
	y.t.Fatal("no child could be held")
}

// checkEnd: one end in the row and in the timeline, one job, nothing kept for later; each step told once, unless Postgres
// forgot it in a crash: what a step found need not survive that.
func (y *yard) checkEnd(id string, forgetful bool) {
	y.t.Helper()
	got, err := ask[string](y, `
		select concat_ws(', ', u.status,
			(select string_agg(state::text, '+') from river_job where args->>'upload_id' = u.id::text),
			(select count(*) from timeline where upload_id = u.id and event in ('completed', 'failed')) || ' ends',
			(select count(*) from step_results where upload_id = u.id) || ' kept')
		from uploads u where id = $1`, id)
	y.must(err)
	if want := "completed, completed, 1 ends, 0 kept"; got != want {
		y.t.Errorf("the upload is %q, want %q", got, want)
	}
	whole, err := ask[string](y, `
		select string_agg(event, ' ' order by seq) from timeline where upload_id = $1 and event in ('type', 'facts', 'completed')`, id)
	y.must(err)
	whole = strings.ReplaceAll(whole, "facts facts", "facts") // one that failed is told of, and so is its repetition
	if told := strings.TrimPrefix(whole, "type "); told != "facts completed" || told == whole && !forgetful {
		y.t.Errorf("the timeline tells of %q", whole)
	}
}

// checkErrors: no more attempts are lost than the victim explains.
func (y *yard) checkErrors(id string, v victim) {
	y.t.Helper()
	errs, err := ask[[]string](y, `
		select array(select e->>'error' from unnest(errors) e) from river_job where args->>'upload_id' = $1`, id)
	y.must(err)
	lost := 0
	for _, e := range errs {
		if e == "worker lost" {
			lost++
		}
	}
	if len(errs) > v.errors || lost != v.lost {
		y.t.Errorf("%d attempts were lost, %d of them as a dead worker's; want at most %d, and %d: %q", len(errs), lost, v.errors, v.lost, errs)
	}
}

// checkThumbnails: the three thumbnails are in the rows and in S3, and nothing else is there but the original.
func (y *yard) checkThumbnails(id string) {
	y.t.Helper()
	rows, err := ask[[]string](y, `
		select array(select object_key || ' ' || bytes from thumbnails where upload_id = $1
			union all select object_key || ' ' || size from uploads where id = $1)`, id)
	y.must(err)
	var objects []string
	list, err := y.S3.Client("").ListObjectsV2(stack.Context(y.t), &s3.ListObjectsV2Input{Bucket: &y.Bucket})
	y.must(err)
	for _, o := range list.Contents {
		if key := aws.ToString(o.Key); strings.Contains(key, id) && !strings.HasSuffix(key, "/") {
			objects = append(objects, fmt.Sprintf("%s %d", key, aws.ToInt64(o.Size)))
		}
	}
	slices.Sort(rows)
	slices.Sort(objects)
	if len(rows) != 4 || !slices.Equal(rows, objects) {
		y.t.Errorf("the rows know of\n%s\nand S3 has\n%s", strings.Join(rows, "\n"), strings.Join(objects, "\n"))
	}
}

// checkNothingLeft: no file is left of any worker, dead or alive, no directory of a dead one, and none of its processes. Of a
// living one children are kept.
func (y *yard) checkNothingLeft(w *worker, before []int) {
	y.t.Helper()
	y.until("end of the children", func() bool {
		kept := children(w.process.Pid())
		return !slices.ContainsFunc(before, func(pid int) bool { return alive(pid) && !slices.Contains(kept, pid) })
	})
	if files := y.tempFiles(); len(files) > 0 {
		y.t.Errorf("left on disk: %v", files)
	}
}
