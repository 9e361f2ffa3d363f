package stack_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tramo/tramo/test/stack"
)

func TestS3ObjectIsAPlainFile(t *testing.T) {
	t.Parallel()
	client, bucket, key := stack.Get(t, ground.S3).Client(""), stack.Get(t, ground.S3).Bucket(), "tenants/a/plain.jpg"
	body := random(3 << 20)
	_, err := client.PutObject(stack.Context(t), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader(body), ContentType: aws.String("image/jpeg"),
		Metadata: map[string]string{"upload": "1"},
	})
	stack.Must(t, err)

	file, err := os.ReadFile(filepath.Join(stack.Get(t, ground.S3).Dir(), bucket, filepath.FromSlash(key)))
	stack.Must(t, err)
	if !bytes.Equal(file, body) {
		t.Error("the file below Dir differs from what was put")
	}
	got, err := client.GetObject(stack.Context(t), &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: aws.String("bytes=10-19")})
	stack.Must(t, err)
	part, err := io.ReadAll(got.Body)
	stack.Must(t, err)
	if !bytes.Equal(part, body[10:20]) {
		t.Error("the range differs from what was put")
	}
	if aws.ToString(got.ContentType) != "image/jpeg" || got.Metadata["upload"] != "1" {
		t.Errorf("content type %q, metadata %v: want what was put", aws.ToString(got.ContentType), got.Metadata)
	}
}

// A directory that somebody else has made is a bucket: deploy/compose makes its bucket so.
func TestS3DirectoriesAreBuckets(t *testing.T) {
	t.Parallel()
	server, bucket, key := stack.Get(t, ground.S3), "made-by-hand", "tenants/a/large"
	stack.Must(t, os.Mkdir(filepath.Join(server.Dir(), bucket), 0o755))
	client := server.Client("")
	_, err := client.HeadBucket(stack.Context(t), &s3.HeadBucketInput{Bucket: &bucket})
	stack.Must(t, err)
	put(t, client, bucket, key, []byte("seen"))
	copied := key + "-copy"
	_, err = client.CopyObject(stack.Context(t), &s3.CopyObjectInput{Bucket: &bucket, Key: &copied, CopySource: aws.String(bucket + "/" + key)})
	stack.Must(t, err)
	created, err := client.CreateMultipartUpload(stack.Context(t), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key})
	stack.Must(t, err)
	listed, err := client.ListMultipartUploads(stack.Context(t), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	stack.Must(t, err)
	if len(listed.Uploads) != 1 || aws.ToString(listed.Uploads[0].UploadId) != aws.ToString(created.UploadId) {
		t.Errorf("multipart uploads: %v, want the one that was begun", listed.Uploads)
	}
}

func TestS3PresignedLink(t *testing.T) {
	t.Parallel()
	client, bucket, key := stack.Get(t, ground.S3).Client(""), stack.Get(t, ground.S3).Bucket(), "tenants/a/linked"
	put(t, client, bucket, key, []byte("seen"))
	link, err := s3.NewPresignClient(client).PresignGetObject(stack.Context(t),
		&s3.GetObjectInput{Bucket: &bucket, Key: &key, ResponseContentDisposition: aws.String(`attachment; filename="a b.jpg"`)},
		s3.WithPresignExpires(time.Minute))
	stack.Must(t, err)

	res := get(t, link.URL)
	if res.status != http.StatusOK || res.body != "seen" {
		t.Errorf("the link answers %d %q, want 200 and the object", res.status, res.body)
	}
	stack.Want(t, res.header.Get("Content-Disposition"), `attachment; filename="a b.jpg"`, "Content-Disposition")
	stack.Want(t, get(t, strings.Replace(link.URL, "linked", "other", 1)).status, http.StatusForbidden, "status of a forged link")
}

func TestS3Tags(t *testing.T) {
	t.Parallel()
	client, bucket, key := stack.Get(t, ground.S3).Client(""), stack.Get(t, ground.S3).Bucket(), "tenants/a/tagged"
	put(t, client, bucket, key, []byte("x"))
	_, err := client.PutObjectTagging(stack.Context(t), &s3.PutObjectTaggingInput{Bucket: &bucket, Key: &key, Tagging: &types.Tagging{
		TagSet: []types.Tag{{Key: aws.String("scan"), Value: aws.String("infected")}},
	}})
	stack.Must(t, err)
	tags, err := client.GetObjectTagging(stack.Context(t), &s3.GetObjectTaggingInput{Bucket: &bucket, Key: &key})
	stack.Must(t, err)
	if len(tags.TagSet) != 1 || aws.ToString(tags.TagSet[0].Value) != "infected" {
		t.Errorf("tags = %v, want scan=infected", tags.TagSet)
	}
}

func TestS3Multipart(t *testing.T) {
	t.Parallel()
	client, bucket, key := stack.Get(t, ground.S3).Client(""), stack.Get(t, ground.S3).Bucket(), "tenants/a/large"
	body := random(11 << 20)
	id, parts := upload(t, client, bucket, key, body)
	_, err := client.CompleteMultipartUpload(stack.Context(t), &s3.CompleteMultipartUploadInput{
		Bucket: &bucket, Key: &key, UploadId: &id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	stack.Must(t, err)
	file, err := os.ReadFile(filepath.Join(stack.Get(t, ground.S3).Dir(), bucket, filepath.FromSlash(key)))
	stack.Must(t, err)
	if !bytes.Equal(file, body) {
		t.Error("the file below Dir differs from what the parts held")
	}
}

func TestS3AbortedMultipartLeavesNothing(t *testing.T) {
	t.Parallel()
	client, bucket, key := stack.Get(t, ground.S3).Client(""), stack.Get(t, ground.S3).Bucket(), "tenants/a/aborted"
	id, _ := upload(t, client, bucket, key, random(6<<20))
	_, err := client.AbortMultipartUpload(stack.Context(t), &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: &id})
	stack.Must(t, err)

	stack.Must(t, filepath.WalkDir(stack.Get(t, ground.S3).Dir(), func(path string, _ fs.DirEntry, err error) error {
		// Others' temporary files come and go meanwhile.
		if err == nil && (strings.Contains(path, id) || strings.HasSuffix(path, key)) {
			t.Errorf("%s is left", path)
		}
		return nil
	}))
	list, err := client.ListMultipartUploads(stack.Context(t), &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: &key})
	stack.Must(t, err)
	stack.Want(t, len(list.Uploads), 0, "number of multipart uploads in the list")
}

func upload(t *testing.T, client *s3.Client, bucket, key string, body []byte) (id string, parts []types.CompletedPart) {
	t.Helper()
	created, err := client.CreateMultipartUpload(stack.Context(t), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key})
	stack.Must(t, err)
	const partSize = 5 << 20
	for n := int32(1); len(body) > 0; n++ {
		size := min(partSize, len(body))
		part, err := client.UploadPart(stack.Context(t), &s3.UploadPartInput{
			Bucket: &bucket, Key: &key, UploadId: created.UploadId, PartNumber: aws.Int32(n), Body: bytes.NewReader(body[:size]),
		})
		stack.Must(t, err)
		parts = append(parts, types.CompletedPart{ETag: part.ETag, PartNumber: aws.Int32(n)})
		body = body[size:]
	}
	return aws.ToString(created.UploadId), parts
}

func put(t *testing.T, client *s3.Client, bucket, key string, body []byte) {
	t.Helper()
	_, err := client.PutObject(stack.Context(t), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(body)})
	stack.Must(t, err)
}

type response struct {
	status int
	header http.Header
	body   string
}

func get(t *testing.T, url string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(stack.Context(t), http.MethodGet, url, nil)
	stack.Must(t, err)
	res, err := http.DefaultClient.Do(req)
	stack.Must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	stack.Must(t, err)
	return response{res.StatusCode, res.Header, string(body)}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
