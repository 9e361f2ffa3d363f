package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A film of a phone ends with its poster, and tells when, where and how long, in the fields of a photo; the search for its place
// finds it.
func TestFilmTellsItsFacts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "losa.mov")
	out, err := exec.CommandContext(t.Context(), "ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=1.5",
		"-c:v", "mpeg4", "-movflags", "use_metadata_tags", "-metadata", "com.apple.quicktime.creationdate=2026-05-04T17:45:09-0300",
		"-metadata", "com.apple.quicktime.location.ISO6709=-34.6037-058.3816+025.500/", "-metadata", "com.apple.quicktime.make=Apple", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	film, err := os.ReadFile(path)
	stack.Must(t, err)
	u := newUser(t)
	up := u.completes(u.send(tramo.replicas[0], film, "filename", "losa.mov", "filetype", "video/quicktime"))
	if len(up.Thumbnails) != 3 || up.Type != "video/quicktime" {
		t.Errorf("%d thumbnails of %s", len(up.Thumbnails), up.Type)
	}
	f := up.Facts
	if f == nil || f.GPS == nil || f.Camera == nil {
		t.Fatalf("no facts: %+v", f)
	}
	if f.TakenAt != "2026-05-04T20:45:09Z" || f.TakenLocal != "2026-05-04T17:45:09" || f.Camera.Make != "Apple" ||
		f.GPS.Latitude != -34.6037 || f.GPS.Longitude != -58.3816 || f.GPS.Altitude != 25.5 {
		t.Errorf("taken at %s, local %s, at %+v, with %+v", f.TakenAt, f.TakenLocal, f.GPS, f.Camera)
	}
	if f.Width != 320 || f.Height != 240 || f.Duration != 1.5 {
		t.Errorf("%d by %d, %v s", f.Width, f.Height, f.Duration)
	}
	for _, query := range []string{"near=-34.6037,-58.3816,10", "taken=2026-05-04..2026-05-04", "taken=2026-05-04T20:45:09Z..2026-05-04T20:45:09Z"} {
		found := decode[struct{ Items []upload }](t, u.do("GET", tramo.replicas[1].URL+"/api/uploads?"+query, nil), http.StatusOK)
		if len(found.Items) != 1 || found.Items[0].ID != up.ID {
			t.Errorf("%s: %+v", query, found)
		}
	}
}
