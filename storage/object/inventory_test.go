package object_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
)

// More than a page of objects and of multipart uploads is listed: each once, objects in the order of keys, and nothing
// outside the tenants' prefix. Aborting ends one multipart upload, and is no error when it has ended before.
func TestInventory(t *testing.T) {
	t.Parallel()
	const many = 1005 // S3 lists up to 1,000 a page
	name := "inventory-" + uuid.NewString()
	client := shared.s3.Client("")
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name})
	must(t, err)
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: shared.s3.Endpoint(), Name: name})
	must(t, err)
	k := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	for n := range int64(many) {
		_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: aws.String(k.Original(n)), Body: strings.NewReader("x")})
		must(t, err)
		_, err = client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &name, Key: aws.String(k.Original(n))})
		must(t, err)
	}
	must(t, bucket.Put(t.Context(), "another/thing", "text/plain", strings.NewReader("x"), 1))

	var keys []string
	for o, err := range bucket.Objects(t.Context()) {
		must(t, err)
		if o.MultipartID != "" || o.Since.IsZero() {
			t.Errorf("got %+v", o)
		}
		keys = append(keys, o.Key)
	}
	if !slices.IsSorted(keys) || len(slices.Compact(keys)) != many {
		t.Errorf("%d objects, in order: %t", len(keys), slices.IsSorted(keys))
	}
	ids := map[string]bool{}
	for u, err := range bucket.Multiparts(t.Context()) {
		must(t, err)
		if ids[u.MultipartID] || u.Since.IsZero() {
			t.Errorf("got %+v", u)
		}
		if ids[u.MultipartID] = true; len(ids) == 1 {
			for range 2 {
				must(t, bucket.Abort(t.Context(), u.Key, u.MultipartID))
			}
		}
	}
	left := 0
	for _, err := range bucket.Multiparts(t.Context()) {
		must(t, err)
		left++
	}
	if len(ids) != many || left != many-1 {
		t.Errorf("%d multipart uploads, and %d after one was aborted", len(ids), left)
	}
}
