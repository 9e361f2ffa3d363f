package processing

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/corpus"
	"github.com/tramo/tramo/test/stack"
)

// Whatever a file was made to do, its upload ends as it must, and a sound photo that comes behind it, in the same
// processes, is drawn as if it had been alone.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	// The children are a worker's own, without the race detector, so that they have what they have in production.
	worker, err := stack.Build(t.Context(), "tramo-worker")
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, worker.Remove()) })
	p.pipeline.Examiner = &examine.Examiner{
		Command: []string{worker.Path("tramo-worker"), sandbox.Argument}, Tools: examine.FindTools(), TempDir: t.TempDir(),
		Limits: examine.Limits{CPU: 10 * time.Second},
	}
	t.Cleanup(func() { stack.Must(t, p.pipeline.Examiner.Close()) })
	sound := stack.Photo(stack.PhotoConfig{Width: 640, Height: 480, Seed: 1})
	files := corpus.All(sound, stack.EICAR())
	hostile, photos := make([]uuid.UUID, len(files)), make([]uuid.UUID, len(files))
	for i, f := range files {
		hostile[i] = p.receive(t, f.Content, f.Content, 1)
		p.Exec(t, `update uploads set declared_type = nullif($2, '') where id = $1`, hostile[i], f.Declared)
		photos[i] = p.receive(t, sound, sound, 1)
	}
	p.Exec(t, `update river_job set priority = 1`) // in the order in which they came, as long as there is no pool
	p.run(t)
	unended := func() int {
		return p.Count(t, `select count(*) from uploads where status not in ('completed', 'failed')`)
	}
	for n := unended(); n > 0; n = unended() {
		stack.Until(t, fmt.Sprintf("one more of %d uploads has ended", n), func() bool { return unended() < n })
	}
	for i, f := range files {
		if end := p.end(t, hostile[i]); !f.May(end) {
			t.Errorf("%s: %s, want one of %q", f.Name, end, f.Want)
		}
		if end := p.end(t, photos[i]); end != corpus.Drawn {
			t.Errorf("the photo behind %s: %s", f.Name, end)
		}
	}
	p.WantCount(t, len(thumbnailSizes), `select count(distinct (d.size, d.bytes)) from thumbnails d where d.upload_id = any($1)`, photos)
}

// end says how an upload ended, in the corpus's words.
func (p *plant) end(t *testing.T, id uuid.UUID) (end string) {
	t.Helper()
	p.Must(t, p.ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(p.ctx, id)
		if err != nil {
			return err
		}
		drawn, err := tx.Thumbnails(p.ctx, id)
		switch {
		case u.Status != storage.Completed:
			end = fmt.Sprintf("%s: %s", u.Status, *u.FailureReason)
		case u.NoThumbnail != nil && slices.Contains([]string{"memory", "cpu", "time", "output"}, *u.NoThumbnail):
			end = corpus.Limited
		case u.NoThumbnail != nil:
			end = "completed, " + *u.NoThumbnail
		case len(drawn) == 0:
			end = corpus.NoPicture
		case u.Partial:
			end = corpus.Partial
		default:
			end = corpus.Drawn
		}
		return err
	})
	return end
}
