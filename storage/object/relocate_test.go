package object_test

import (
	"bytes"
	"errors"
	"io"
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
	stack.Must(t, bucket.Tag(t.Context(), k.Original(1), "scan", "infected"))

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
