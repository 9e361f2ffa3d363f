package processing

import (
	"testing"

	"github.com/tramo/tramo/storage"
)

// A file that is not of the kind that its sender said fails, or is recorded to be so, as the policy says.
func TestMismatchPolicy(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		p := newFixture(t)
		p.pipeline.Types.AllowMismatch = allow
		id := p.receive(t, smallPhoto(), smallPhoto(), 1)
		p.Exec(t, `update uploads set declared_type = 'application/pdf'`)
		p.run(t)
		p.await(t, allJobs, "completed")
		if !allow {
			p.want(t, id, storage.Failed, storage.ReasonTypeMismatch, 0, 1)
			continue
		}
		p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
		p.WantCount(t, 1, `select count(*) from uploads where type_mismatch and detected_type = 'image/jpeg'`)
	}
}
