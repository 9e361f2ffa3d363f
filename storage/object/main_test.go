package object_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// A site is a test's own database, its tenant, and its way to S3, which can be broken. Its replicas come
// and go.
type site struct {
	*storagetest.Database
	ctx    context.Context //nolint:containedctx // acts for the tenant, for as long as the test runs
	tenant uuid.UUID
	proxy  *proxy
	finish *finisher
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{proxy: newProxy(t), Database: ground.NewDatabase(t)}
	s.ctx = s.NewTenant(t, quota)
	s.tenant = storagetest.TenantOf(t, s.ctx)
	s.finish = &finisher{db: s.API, told: map[uuid.UUID]string{}, first: map[uuid.UUID]int{}}
	return s
}

const quota = 1 << 40

// serve makes a site with one replica.
func serve(t *testing.T) (*site, *replica) {
	t.Helper()
	s := newSite(t)
	return s, s.replica(t)
}

// openBucket opens a bucket of the shared S3.
func openBucket(t *testing.T, endpoint, name string) *object.Bucket {
	t.Helper()
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: endpoint, Name: name})
	stack.Must(t, err)
	return bucket
}

// newBucket makes a bucket of the test's own.
func newBucket(t *testing.T) (client *s3.Client, name string, bucket *object.Bucket) {
	t.Helper()
	shared := stack.Get(t, ground.S3)
	client, name = shared.Client(""), "b-"+uuid.NewString()
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name})
	stack.Must(t, err)
	return client, name, openBucket(t, shared.Endpoint(), name)
}

// create makes an upload's rows, as admission does.
func (s *site) create(t *testing.T, size int) uuid.UUID {
	t.Helper()
	return s.createAs(t, storage.NewUpload{Size: int64(size)})
}

func (s *site) createAs(t *testing.T, n storage.NewUpload) uuid.UUID {
	t.Helper()
	n.ID, n.UserID, n.Project = uuid.Must(uuid.NewV7()), "ana", "torre"
	n.Metadata = map[string]string{"filename": "a.jpg"}
	s.Must(t, s.ctx, func(tx storage.Tx) error { return tx.CreateUpload(s.ctx, n) })
	return n.ID
}

// rows are what Postgres knows of an upload.
func (s *site) rows(t *testing.T, id uuid.UUID) (u storage.Upload, c storage.Content, parts []storage.Part) {
	t.Helper()
	s.Must(t, s.ctx, func(tx storage.Tx) (err error) {
		storage.ReadContent(tx, id, &u, &c)
		parts, err = tx.Parts(s.ctx, id)
		return err
	})
	return u, c, parts
}

// checkDurable reads back from S3 what the rows say is there: exactly the first bytes of what was sent.
func (s *site) checkDurable(t *testing.T, id uuid.UUID, sent []byte) {
	t.Helper()
	_, c, parts := s.rows(t, id)
	if c.Stored {
		if got := s.object(t, *c.ObjectKey); string(got) != string(sent) {
			t.Errorf("the object has %d bytes that differ from the %d that were sent", len(got), len(sent))
		}
		return
	}
	there := s.partsInS3(t, c)
	at := int64(0)
	for _, p := range parts {
		sum := md5.Sum(sent[at : at+p.Size])
		want := hex.EncodeToString(sum[:])
		if strings.Trim(p.ETag, `"`) != want || there[p.Number] != want {
			t.Errorf("part %d at %d is %s in the rows and %s in S3, want %s", p.Number, at, p.ETag, there[p.Number], want)
		}
		at += p.Size
	}
	tail := s.tail(t, id)
	if string(tail) != string(sent[at:c.Received]) || int64(len(tail)) != c.TailSize {
		t.Errorf("the tail at %d has %d bytes, the row says %d, or they differ", at, len(tail), c.TailSize)
	}
	at += c.TailSize
	stack.Want(t, at, c.Received, "bytes of parts and tail, which must be the offset")
}

// tail are the bytes that no part holds yet.
func (s *site) tail(t *testing.T, id uuid.UUID) (tail []byte) {
	t.Helper()
	s.Must(t, s.ctx, func(tx storage.Tx) error {
		return tx.Tail(s.ctx, id, func(p []byte) error {
			tail = append(tail, p...)
			return nil
		})
	})
	return tail
}

// partsInS3 are the MD5 sums of the parts that S3 has, by number.
func (s *site) partsInS3(t *testing.T, c storage.Content) map[int32]string {
	t.Helper()
	there := map[int32]string{}
	if c.MultipartID == nil {
		return there
	}
	out, err := stack.Get(t, ground.S3).Client("").ListParts(t.Context(), &s3.ListPartsInput{
		Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: c.ObjectKey, UploadId: c.MultipartID,
	})
	stack.Must(t, err)
	for _, p := range out.Parts {
		there[*p.PartNumber] = strings.Trim(*p.ETag, `"`)
	}
	return there
}

// partBytes are how many bytes the parts have that S3 has of an upload, whether they count or not.
func (s *site) partBytes(t *testing.T, id uuid.UUID) (bytes int64) {
	t.Helper()
	_, c, _ := s.rows(t, id)
	out, err := stack.Get(t, ground.S3).Client("").ListParts(t.Context(), &s3.ListPartsInput{
		Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: c.ObjectKey, UploadId: c.MultipartID,
	})
	stack.Must(t, err)
	for _, p := range out.Parts {
		bytes += *p.Size
	}
	return bytes
}

func (s *site) object(t *testing.T, key string) []byte {
	t.Helper()
	out, err := stack.Get(t, ground.S3).Client("").GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: &key})
	stack.Must(t, err)
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	stack.Must(t, err)
	return b
}

// left is what S3 has of the tenant's: objects and multipart uploads.
func (s *site) left(t *testing.T) (left []string) {
	t.Helper()
	prefix := aws.String("tenants/" + s.tenant.String() + "/")
	client, bucket := stack.Get(t, ground.S3).Client(""), aws.String(stack.Get(t, ground.S3).Bucket())
	objects, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket, Prefix: prefix})
	stack.Must(t, err)
	for _, o := range objects.Contents {
		left = append(left, *o.Key)
	}
	uploads, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: bucket, Prefix: prefix})
	stack.Must(t, err)
	for _, u := range uploads.Uploads {
		left = append(left, "multipart upload of "+*u.Key)
	}
	return left
}

// noise makes bytes that are different in each test.
func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte([]byte(uuid.NewString())[:32])).Read(b) // never fails
	return b
}
