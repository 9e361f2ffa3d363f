package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

func TestSmoke(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	photo := stack.Photo(stack.PhotoConfig{Seed: 1})
	url := u.send(tramo.replicas[0], photo, "filename", "a.jpg", "filetype", "image/jpeg")
	up, seen := u.await(url)
	sum := sha256.Sum256(photo)
	if up.Status != "completed" || up.SHA256 != hex.EncodeToString(sum[:]) || len(up.Derivatives) != 3 {
		t.Fatalf("got %+v, seen %v", up, seen)
	}
	res, err := http.Get(up.Derivatives[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(res.Body)
	if !bytes.HasPrefix(data, []byte("RIFF")) {
		t.Errorf("thumbnail: %d %q", res.StatusCode, data[:min(len(data), 200)])
	}
}
