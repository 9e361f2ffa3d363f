package object_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A store answers 200 and nothing else to each operation of a concatenation in turn: nothing panics, nothing is called
// complete that is not, no partial upload is given up, and once the store answers as S3 does, the next HEAD finishes it.
func TestConcatenateOfEmptyAnswers(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{copyPart, uploadPart, createUpload, completeUpload, getObject} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s, r := serve(t)
			partials, content := s.partials(t, r, part, 1000, 2*part, 3)
			final := s.final(t, partials, len(content))
			s.proxy.chooses(only(kind, stack.EmptyAnswer))
			err := r.concat(s.ctx, final)
			if u, _, _ := s.rows(t, final); err == nil && u.Status != storage.Uploaded || errors.Is(err, object.ErrLost) {
				t.Errorf("the upload is %s: %v", u.Status, err)
			}
			s.proxy.chooses(nil)
			stack.Must(t, r.concat(s.ctx, final))
			s.checkConcatenated(t, final, partials, content)
		})
	}
}

// A part whose answer has no ETag is refused when it is sent: its offset does not move, so that its client sends it again.
func TestPartWithoutETag(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]stack.Fault{"empty": stack.EmptyAnswer, "no ETag": {Change: stack.NoETag}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, r := serve(t)
			content := noise(2*part + 1)
			id := s.create(t, len(content))
			s.proxy.chooses(only(uploadPart, what))
			if _, err := r.patch(s.ctx, id, 0, bytes.NewReader(content)); !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), uploadPart) {
				t.Errorf("a part without an ETag: %v", err)
			}
			if _, c, parts := s.rows(t, id); c.Received != 0 || len(parts) > 0 {
				t.Errorf("the offset is %d, of parts %+v", c.Received, parts)
			}
			s.proxy.chooses(nil)
			_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
			stack.Must(t, err)
			s.checkComplete(t, id, content)
		})
	}
}

// A multipart upload without an id is none: nothing is recorded of it.
func TestMultipartUploadWithoutID(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(part + 1)
	id := s.create(t, len(content))
	s.proxy.chooses(only(createUpload, stack.EmptyAnswer))
	_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
	stack.WantErr(t, err, object.ErrUnsupported)
	if _, c, _ := s.rows(t, id); c.MultipartID != nil {
		t.Errorf("the multipart upload is %q", *c.MultipartID)
	}
}

// An empty 200 completes no upload: S3 is asked for the object.
func TestEmptyCompletion(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(part + 1)
	id := s.create(t, len(content))
	s.proxy.chooses(only(completeUpload, stack.EmptyAnswer))
	if _, err := r.patch(s.ctx, id, 0, bytes.NewReader(content)); err == nil || errors.Is(err, object.ErrLost) {
		t.Errorf("an upload whose object does not exist: %v", err)
	}
	s.proxy.chooses(nil)
	_, err := r.head(s.ctx, id)
	stack.Must(t, err)
	s.checkComplete(t, id, content)
}

// The answer of a store that leaves a length out says neither that an object has no bytes nor that it is another one.
func TestAnswersWithoutLength(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	bucket := openBucket(t, p.Endpoint(), stack.Get(t, ground.S3).Bucket())
	keys := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	key := keys.Original(1)
	stack.Must(t, bucket.Put(t.Context(), key, "text/plain", strings.NewReader("content"), 7))
	p.chooses(func(string, int) stack.Fault {
		return stack.Fault{Change: func(res *http.Response) { res.Header.Del("Content-Length"); res.ContentLength = -1 }}
	})
	size, err := bucket.Size(t.Context(), key)
	if !errors.Is(err, object.ErrUnsupported) {
		t.Errorf("a size of %d, %v", size, err)
	}
	who := tenant.Identity{Tenant: keys.Tenant, User: "ana", Role: tenant.Empleado}
	opened, err := bucket.Open(tenant.With(t.Context(), who), keys, key, "")
	if err == nil {
		opened.Close()
	}
	if !errors.Is(err, object.ErrUnsupported) {
		t.Errorf("an object is opened: %v", err)
	}
	body, size, err := bucket.Get(t.Context(), key)
	if err == nil {
		body.Close()
	}
	if !errors.Is(err, object.ErrUnsupported) {
		t.Errorf("an object of %d bytes, %v", size, err)
	}
}

// Lists without what Tramo asks of them are errors, and no lists of something old or nameless, which would be deleted.
func TestListsThatLackSomething(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	shared := stack.Get(t, ground.S3)
	_, name, _ := newBucket(t)
	bucket := openBucket(t, p.Endpoint(), name)
	keys := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	for n := range int64(3) {
		stack.Must(t, bucket.Put(t.Context(), keys.Original(n), "text/plain", strings.NewReader("x"), 1))
	}
	_, err := shared.Client("").CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &name, Key: aws.String(keys.Original(9))})
	stack.Must(t, err)
	lists := map[string]func(context.Context) error{
		listObjects: func(ctx context.Context) (err error) {
			for _, err = range bucket.Objects(ctx) {
				if err != nil {
					break
				}
			}
			return err
		},
		listUploads: func(ctx context.Context) (err error) {
			for _, err = range bucket.Multiparts(ctx) {
				if err != nil {
					break
				}
			}
			return err
		},
	}
	for kind, missing := range map[string][]string{
		listObjects: {"Key", "LastModified"}, listUploads: {"Key", "UploadId", "Initiated"},
	} {
		for _, tag := range missing {
			p.chooses(only(kind, stack.Fault{Change: stack.Without(tag)})) //nolint:bodyclose // it is changed, not taken
			if err := lists[kind](t.Context()); !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), tag) {
				t.Errorf("%s without %s: %v", kind, tag, err)
			}
		}
		// A page that is not the last, and does not say where the next begins.
		p.chooses(only(kind, stack.Fault{Change: stack.Truncated}))
		if err := lists[kind](t.Context()); !errors.Is(err, object.ErrUnsupported) {
			t.Errorf("%s that is cut: %v", kind, err)
		}
		p.chooses(nil)
	}
	if n, err := bucket.RemoveUpload(t.Context(), keys); err != nil || n != 4 {
		t.Errorf("%d removed, %v", n, err)
	}
	// Now all lists are empty, which some stores call 404.
	p.chooses(func(string, int) stack.Fault { return stack.Fault{Change: stack.NoEmptyList} })
	for kind, list := range lists {
		if err := list(t.Context()); err != nil {
			t.Errorf("%s of nothing: %v", kind, err)
		}
	}
	if n, err := bucket.RemoveUpload(t.Context(), keys); err != nil || n != 0 {
		t.Errorf("%d removed of nothing, %v", n, err)
	}
}

// only lets each request of a kind go wrong, and no other.
func only(kind string, what stack.Fault) func(string, int) stack.Fault {
	return func(k string, _ int) stack.Fault {
		if k == kind {
			return what
		}
		return stack.Fault{}
	}
}
