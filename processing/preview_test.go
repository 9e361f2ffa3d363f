package processing

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// kept is what the row of an upload says of its document and its thumbnails.
func (p *fixture) kept(t *testing.T, id uuid.UUID) (u storage.Upload) {
	t.Helper()
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `select detected_type, pages, title, no_thumbnail, width_px from uploads where id = $1`, id).
		Scan(&u.DetectedType, &u.Pages, &u.Title, &u.NoThumbnail, &u.WidthPx))
	return u
}

// A PDF ends with its pages' number, its title and three thumbnails. One that no program opens is kept, and says so; so is one where
// the tools are missing.
func TestPDFThroughThePipeline(t *testing.T) {
	t.Parallel()
	page := stack.PDF(stack.PDFConfig{Title: "Acta de obra 14", Pages: 3, Content: stack.RedCorner})
	p := newFixture(t)
	p.pipeline.Examiner.Tools = examine.FindTools()
	good, broken := p.receive(t, page, page, 1), p.receive(t, page[:300], page[:300], 1)
	p.run(t)
	p.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	p.want(t, good, storage.Completed, "", 3, 1)
	p.want(t, broken, storage.Completed, "", 0, 1)
	if u := p.kept(t, broken); u.NoThumbnail == nil || *u.NoThumbnail != examine.NoThumbnailUnreadable {
		t.Errorf("of a PDF that no program opens: %+v", u)
	}
	u := p.kept(t, good)
	if *u.DetectedType != "application/pdf" || u.Pages == nil || *u.Pages != 3 || u.Title == nil || *u.Title != "Acta de obra 14" || u.NoThumbnail != nil || u.WidthPx != nil {
		t.Errorf("%+v", u)
	}
	stack.Want(t, p.drawn(t, good), 3, "number of thumbnails")

	bare := newFixture(t)
	missing := bare.receive(t, page, page, 1)
	bare.run(t)
	bare.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	bare.want(t, missing, storage.Completed, "", 0, 1)
	if u := bare.kept(t, missing); u.NoThumbnail == nil || *u.NoThumbnail != examine.NoThumbnailToolMissing || u.Pages != nil {
		t.Errorf("%+v", u)
	}
}

// Documents and drawings are told apart by their content, and show the preview that they carry.
func TestPreviewsThroughThePipeline(t *testing.T) {
	t.Parallel()
	flag := stack.PNG(200, 100)
	p := newFixture(t)
	want := map[uuid.UUID]string{}
	for content, kind := range map[string]string{
		string(stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", flag)):   ".wordprocessingml.document",
		string(stack.OpenDocument(flag)):                                            ".opendocument.text",
		string(stack.DWG("AC1032", stack.DWGEntry{Code: stack.DWGPNG, Data: flag})): "/vnd.dwg",
	} {
		want[p.receive(t, []byte(content), []byte(content), 1)] = kind
	}
	p.run(t)
	p.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	for id, kind := range want {
		p.want(t, id, storage.Completed, "", 3, 1)
		if u := p.kept(t, id); !strings.HasSuffix(*u.DetectedType, kind) || u.NoThumbnail != nil {
			t.Errorf("%s: %+v", *u.DetectedType, u)
		}
	}
}

// What nothing can decode is kept, and so are the facts that it has: it is clean, and what was sent.
func TestUndecodableIsKept(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.pipeline.Examiner.Tools = examine.FindTools()
	photo := smallPhoto()
	var ids []uuid.UUID
	for _, content := range [][]byte{
		photo[:120], stack.PNG(100, 100)[:30], []byte("\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom\x00\x00\x00\x08free"),
		append([]byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"), make([]byte, 100)...),
	} {
		ids = append(ids, p.receive(t, content, content, 1))
	}
	p.run(t)
	p.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	for _, id := range ids {
		p.want(t, id, storage.Completed, "", 0, 1)
	}
	p.WantCount(t, len(ids), `select count(*) from uploads where no_thumbnail = 'unreadable' and failure_reason is null and not partial`)
	p.WantCount(t, len(ids), `select count(*) from scans where verdict = 'clean'`)
}
