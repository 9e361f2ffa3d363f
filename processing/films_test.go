package processing

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// filmed has ffmpeg make a film of a second and a half.
func filmed(t *testing.T, name string, arguments ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	all := append([]string{"-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=1.5", "-c:v", "mpeg4"}, arguments...)
	out, err := exec.Command("ffmpeg", append(all, path)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	return content
}

// A film ends with its poster and its facts in the columns of a photo's, so that the same search finds it.
func TestFilmThroughThePipeline(t *testing.T) {
	t.Parallel()
	content := filmed(t, "film.mov", "-movflags", "use_metadata_tags", "-metadata", "com.apple.quicktime.creationdate=2026-05-04T17:45:09-0300",
		"-metadata", "com.apple.quicktime.location.ISO6709=-34.6037-058.3816+025.500/", "-metadata", "com.apple.quicktime.make=Apple",
		"-metadata", "com.apple.quicktime.title=Losa, nivel 3")
	p := newFixture(t)
	p.pipeline.Examiner.Tools = examine.FindTools()
	id := p.receive(t, content, content, 1)
	p.run(t)
	p.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	p.want(t, id, storage.Completed, "", 3, 1)
	for name, page := range map[string]storage.Page{
		"place":   {Near: &storage.Circle{Latitude: -34.6037, Longitude: -58.3816, Radius: 10}},
		"day":     {Taken: &storage.Span{Local: true, From: time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC), Before: time.Date(2026, 5, 5, 0, 0, 0, 0, time.UTC)}},
		"instant": {Taken: &storage.Span{From: time.Date(2026, 5, 4, 20, 45, 9, 0, time.UTC), Before: time.Date(2026, 5, 4, 20, 45, 10, 0, time.UTC)}},
	} {
		page.Limit = 10
		var found []storage.Upload
		stack.Must(t, p.API.InTenant(p.ctx, func(tx storage.Tx) (err error) {
			found, err = tx.Uploads(t.Context(), page)
			return err
		}))
		if len(found) != 1 || found[0].ID != id {
			t.Fatalf("by its %s: %d films", name, len(found))
		}
		wantFilm(t, found[0])
	}
	var tags string
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `select tags #>> '{Keys,Make}' from tags where upload_id = $1`, id).Scan(&tags))
	if tags != "Apple" {
		t.Errorf("the tags say %q", tags)
	}
}

func wantFilm(t *testing.T, u storage.Upload) {
	t.Helper()
	f := u.Facts
	switch {
	case f.Latitude == nil || math.Abs(*f.Latitude+34.6037) > 1e-7 || *f.AltitudeM != 25.5:
		t.Errorf("place %+v", f.Place)
	case f.TakenAt == nil || f.TakenAt.Unix() != 1_777_927_509 || *f.TakenZone != "offset":
		t.Errorf("taken %v by %v", f.TakenAt, f.TakenZone)
	case f.DurationS == nil || *f.DurationS != 1.5 || f.WidthPx == nil || *f.WidthPx != 320 || *f.HeightPx != 240:
		t.Errorf("%v s, %v x %v", f.DurationS, f.WidthPx, f.HeightPx)
	case u.Title == nil || *u.Title != "Losa, nivel 3" || *f.CameraMake != "Apple":
		t.Errorf("title %v, camera %+v", u.Title, f.Camera)
	}
}

// A film whose header alone says when, as Android's do, is found by instant.
func TestFilmOfAHeader(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	content := filmed(t, "film.mp4", "-metadata", "creation_time=2026-05-04T20:45:09Z")
	id := p.receive(t, content, content, 1)
	p.run(t)
	p.await(t, `select bool_and(status in ('completed', 'failed')) from uploads`)
	var at time.Time
	var zone string
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `select taken_at, taken_zone from uploads where id = $1 and taken_local is null`, id).Scan(&at, &zone))
	if at.Unix() != 1_777_927_509 || zone != "header" {
		t.Errorf("taken %v by %q", at, zone)
	}
}
