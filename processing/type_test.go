package processing

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
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

// What is a kind of an accepted type is accepted, wherever in the file it says what it is; one with a password says so, and what has
// no picture has none.
func TestKindsThroughThePipeline(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	type end struct {
		mediaType, problem string
		thumbnails         int
	}
	want := map[uuid.UUID]end{}
	for content, e := range map[string]end{
		string(stack.Word97(100<<10, false)):                                                {"application/msword", "", 0},
		string(stack.Word97(100<<10, true)):                                                 {"application/msword", examine.NoThumbnailProtected, 0},
		string(stack.Excel97(20_000, false)):                                                {"application/vnd.ms-excel", "", 0},
		string(stack.EncryptedOffice()):                                                     {mediatype.EncryptedOffice, examine.NoThumbnailProtected, 0},
		string(stack.OpenDocument(nil)):                                                     {"application/vnd.oasis.opendocument.text", "", 0},
		string(stack.AnimatedPNG(32, 16)):                                                   {"image/apng", "", len(thumbnailSizes)},
		"P1\n6301234 345678\n6301240 345690\n":                                              {"text/plain", "", 0},
		"Date: 14 marzo\nFrom: obra 14\n\nllego acero\n":                                    {"message/rfc822", "", 0},
		"BM" + strings.Repeat("\x00", 12) + "\x28\x00\x00\x00" + strings.Repeat("\x00", 64): {"image/bmp", "", 0},
	} {
		want[p.receive(t, []byte(content), []byte(content), 1)] = e
	}
	p.run(t)
	p.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	for id, e := range want {
		p.want(t, id, storage.Completed, "", e.thumbnails, 1)
		u := p.kept(t, id)
		got := end{thumbnails: p.drawn(t, id)}
		if u.DetectedType != nil {
			got.mediaType = *u.DetectedType
		}
		if u.NoThumbnail != nil {
			got.problem = *u.NoThumbnail
		}
		if got != e {
			t.Errorf("%+v, want %+v", got, e)
		}
	}
}
