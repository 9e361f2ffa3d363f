package object_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// What is in quarantine comes beside what else there is of the same upload, and multipart uploads there are found, too.
func TestInventoryOfQuarantine(t *testing.T) {
	t.Parallel()
	client, name, bucket := newBucket(t)
	tenant := uuid.New()
	var want []string
	for n := range 6 {
		k := object.Keys{Tenant: tenant, Project: "torre", Upload: uuid.UUID{0: byte(n)}}
		if n != 1 && n != 5 { // all objects of that upload are in quarantine
			want = append(want, k.Original(1), k.Thumbnail(160))
		}
		if n != 0 && n != 3 { // and none of that upload
			want = append(want, k.Quarantine(2))
		}
	}
	for _, key := range append(want, "quarantine/other", "quarantines/tenants/x") {
		stack.Must(t, bucket.Put(t.Context(), key, "text/plain", strings.NewReader("x"), 1))
	}
	multipart := object.Keys{Tenant: tenant, Project: "torre", Upload: uuid.New()}.Quarantine(9)
	_, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &name, Key: &multipart})
	stack.Must(t, err)

	var keys, uploads []string
	for o, err := range bucket.Objects(t.Context()) {
		stack.Must(t, err)
		k, ok := object.ParseKey(o.Key)
		if !ok {
			t.Errorf("got %s", o.Key)
		}
		keys, uploads = append(keys, o.Key), append(uploads, k.Prefix())
	}
	slices.Sort(want)
	if !slices.IsSorted(uploads) || !slices.Equal(slices.Sorted(slices.Values(keys)), want) {
		t.Errorf("got %q, want %q", keys, want)
	}
	found := 0
	for u, err := range bucket.Multiparts(t.Context()) {
		stack.Must(t, err)
		if found++; u.Key != multipart {
			t.Errorf("got %s", u.Key)
		}
	}
	stack.Want(t, found, 1, "number of multipart uploads")
}

// More than a page of objects and of multipart uploads is listed: each once, objects in the order of keys, and nothing
// outside the tenants' prefix. Aborting ends one multipart upload, and is no error when it has ended before.
func TestInventory(t *testing.T) {
	t.Parallel()
	const many = 1005 // S3 lists up to 1,000 a page
	client, name, bucket := newBucket(t)
	k := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	for n := range int64(many) {
		_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: aws.String(k.Original(n)), Body: strings.NewReader("x")})
		stack.Must(t, err)
		_, err = client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &name, Key: aws.String(k.Original(n))})
		stack.Must(t, err)
	}
	stack.Must(t, bucket.Put(t.Context(), "another/thing", "text/plain", strings.NewReader("x"), 1))

	var keys []string
	for o, err := range bucket.Objects(t.Context()) {
		stack.Must(t, err)
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
		stack.Must(t, err)
		if ids[u.MultipartID] || u.Since.IsZero() {
			t.Errorf("got %+v", u)
		}
		if ids[u.MultipartID] = true; len(ids) == 1 {
			for range 2 {
				stack.Must(t, bucket.Abort(t.Context(), u.Key, u.MultipartID))
			}
		}
	}
	left := 0
	for _, err := range bucket.Multiparts(t.Context()) {
		stack.Must(t, err)
		left++
	}
	if len(ids) != many || left != many-1 {
		t.Errorf("%d multipart uploads, and %d after one was aborted", len(ids), left)
	}
}
