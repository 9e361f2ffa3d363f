package object_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// A copy has the same bytes and no tags, whether one request makes it or, of what is too large for that, several; what it
// was made of stays. Without a source, and for a size that is not its own, there is an error, and no multipart upload is
// left.
func TestCopy(t *testing.T) {
	t.Parallel()
	client, name, bucket := newBucket(t)
	k := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	content := bytes.Repeat([]byte("0123456789abcdef"), 12<<20/16)
	content[len(content)-1] = 'z'
	size := int64(len(content))
	stack.Must(t, bucket.Put(t.Context(), k.Original(1), "application/octet-stream", bytes.NewReader(content), size))
	stack.Must(t, bucket.Tag(t.Context(), k.Original(1), size, "scan", "infected"))

	for i, most := range []int64{object.MaxCopy, size, size - 1} {
		to := k.Quarantine(int64(i))
		stack.Must(t, bucket.CopyIn(t.Context(), k.Original(1), to, size, most, object.MinPartSize))
		for _, key := range []string{k.Original(1), to} {
			body, _, err := bucket.Get(t.Context(), key)
			stack.Must(t, err)
			got, err := io.ReadAll(body)
			_ = body.Close()
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s has %d bytes, or others: %v", key, len(got), err)
			}
		}
		tags, err := client.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &name, Key: &to})
		stack.Must(t, err)
		if len(tags.TagSet) != 0 {
			t.Errorf("the copy has the tags %v", tags.TagSet)
		}
	}
	for _, most := range []int64{size, size - 1} {
		if err := bucket.CopyIn(t.Context(), k.Original(2), k.Quarantine(9), size, most, object.MinPartSize); !errors.Is(err, object.ErrNoObject) {
			t.Errorf("a copy of nothing: %v", err)
		}
	}
	if err := bucket.Copy(t.Context(), k.Original(1), k.Quarantine(9), size+1); err == nil {
		t.Error("a copy of another size is taken for whole")
	}
	for u, err := range bucket.Multiparts(t.Context()) {
		stack.Must(t, err)
		t.Errorf("left is %+v", u)
	}
}

// A store that copies nothing, in either way, gets the bytes of a copy from here, in one request or in parts.
func TestCopyThroughThisProcess(t *testing.T) {
	t.Parallel()
	_, name, direct := newBucket(t)
	k := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	for i, size := range []int64{1, object.SendSpan, object.SendSpan + 1, 2*object.SendSpan + 7} {
		content := noise(int(size))
		from := k.Original(int64(i))
		stack.Must(t, direct.Put(t.Context(), from, "application/octet-stream", bytes.NewReader(content), size))
		for j, what := range []stack.Fault{stack.NotImplemented, stack.EmptyAnswer} {
			for l, most := range []int64{object.MaxCopy, size - 1} { // copied whole, or in parts
				p := newProxy(t)
				p.chooses(func(kind string, _ int) stack.Fault {
					if kind == "CopyObject" || kind == copyPart {
						return what
					}
					return stack.Fault{}
				})
				bucket := openBucket(t, p.Endpoint(), name)
				to := k.Quarantine(int64(100*i + 10*j + l))
				stack.Must(t, bucket.CopyIn(t.Context(), from, to, size, most, object.MinPartSize))
				body, _, err := direct.Get(t.Context(), to)
				stack.Must(t, err)
				got, err := io.ReadAll(body)
				_ = body.Close()
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("a copy of %d bytes has %d, or others: %v", size, len(got), err)
				}
				if bucket.Unavailable() {
					t.Error("the circuit is open")
				}
			}
		}
	}
	for u, err := range direct.Multiparts(t.Context()) {
		stack.Must(t, err)
		t.Errorf("left is %+v", u)
	}
}

// A store that deletes one object at a time is asked to.
func TestRemoveOneByOne(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	bucket := openBucket(t, p.Endpoint(), stack.Get(t, ground.S3).Bucket())
	k := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	for n := range int64(3) {
		stack.Must(t, bucket.Put(t.Context(), k.Original(n), "text/plain", strings.NewReader("x"), 1))
	}
	p.chooses(only("DeleteObjects", stack.NotImplemented))
	if n, err := bucket.RemoveUpload(t.Context(), k); err != nil || n != 3 {
		t.Errorf("%d removed, %v", n, err)
	}
}
