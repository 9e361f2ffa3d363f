package object_test

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// gofakes3, which others such as rclone's serve s3 are made of, lacks some of S3: Tramo says what, and stores,
// concatenates, copies, lists and removes all the same.
func TestGofakes3(t *testing.T) {
	t.Parallel()
	name := stack.Get(t, ground.S3).Bucket()
	backend := s3mem.New()
	stack.Must(t, backend.CreateBucket(name))
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	s := newSite(t)
	s.proxy = newProxyTo(t, server.URL)
	r := s.replica(t)
	bucket := openBucket(t, s.proxy.Endpoint(), name)
	read := func(key string) []byte {
		t.Helper()
		body, _, err := bucket.Get(t.Context(), key)
		stack.Must(t, err)
		defer body.Close()
		got, err := io.ReadAll(body)
		stack.Must(t, err)
		return got
	}

	probe, _ := probed(t, server.URL, name)
	stack.Must(t, probe.Ready(t.Context()))
	if err := probe.Complete(t.Context()); err == nil || !strings.Contains(err.Error(), "UploadPartCopy (") {
		t.Errorf("it lacks: %v", err)
	}

	small, large := noise(1000), noise(2*part+1)
	for _, content := range [][]byte{small, large} {
		id := s.create(t, len(content))
		r.send(t, id, content, 0, len(content))
		u, _, _ := s.rows(t, id)
		if !bytes.Equal(read(*u.ObjectKey), content) {
			t.Errorf("an upload of %d bytes comes back as another", len(content))
		}
	}
	partials, content := s.partials(t, r, part, 1000, 2*part, 3)
	final := s.final(t, partials, len(content))
	stack.Must(t, r.concat(s.ctx, final))
	u, _, _ := s.rows(t, final)
	if u.Status != storage.Uploaded || !bytes.Equal(read(*u.ObjectKey), content) {
		t.Errorf("a concatenated upload is %s, or other bytes", u.Status)
	}
	keys := object.Keys{Tenant: s.tenant, Project: u.Project, Upload: final}
	for _, most := range []int64{object.MaxCopy, u.Size - 1} {
		to := keys.Quarantine(most)
		stack.Must(t, bucket.CopyIn(t.Context(), *u.ObjectKey, to, u.Size, most, object.MinPartSize))
		if !bytes.Equal(read(to), content) {
			t.Error("a copy has other bytes")
		}
		// It takes a tag for content: that is seen, and there is no second time.
		err := bucket.Tag(t.Context(), to, u.Size, "scan", "infected")
		if err == nil || errors.Is(err, object.ErrUnsupported) == (most == object.MaxCopy) {
			t.Errorf("a tag that replaced its object: %v", err)
		}
	}
	if n, err := bucket.RemoveUpload(t.Context(), keys); err != nil || n != 3 {
		t.Errorf("%d objects removed, %v", n, err)
	}
	for range 2 { // the second time there is nothing to list
		_, err := bucket.RemoveSomeOf(t.Context(), s.tenant)
		stack.Must(t, err)
	}
}
