// Package hookstest gives tests of hooks and its features a database and a bucket of their own, and uploads in every state.
package hookstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"log/slog"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

// Main is a package's TestMain: it runs the tests, stops what they have started, and exits.
func Main(m *testing.M) { ground.Main(m) }

// NewDatabase makes a database without an installation.
func NewDatabase(t testing.TB) *storagetest.Database { return ground.NewDatabase(t) }

// A Site is an installation of the test's own.
type Site struct {
	*storagetest.Database
	Bucket    *object.Bucket
	Queue     *queue.Queue
	Admission *hooks.Admission
	Uploads   *hooks.Uploads // without a store and leases
	Erasures  *erasure.Service
	Log       *slog.Logger

	bucket string // its name
}

// MaxSize is how many bytes an upload may have.
const MaxSize = 1000

// New makes an installation. It has no tenants.
func New(t *testing.T) *Site {
	t.Helper()
	s := &Site{Database: ground.NewDatabase(t), Log: stack.Log(t, slog.LevelInfo), bucket: "site-" + uuid.NewString()}
	server := stack.Get(t, ground.S3)
	_, err := server.Client("").CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.bucket})
	stack.Must(t, err)
	s.Bucket, err = object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: server.Endpoint(), Name: s.bucket})
	stack.Must(t, err)
	s.Queue, err = queue.New(s.API, s.Log)
	stack.Must(t, err)
	types, err := mediatype.ParsePolicy("image/*,application/pdf")
	stack.Must(t, err)
	s.Admission = &hooks.Admission{DB: s.API, Policy: hooks.Policy{MaxSize: MaxSize, Types: types}, Log: s.Log}
	s.Erasures = &erasure.Service{Config: erasure.Config{Retention: erasure.DefaultConfig().Retention}, DB: s.API, Queue: s.Queue, Log: s.Log}
	s.Uploads = &hooks.Uploads{
		DB: s.API, Queue: s.Queue, Bucket: s.Bucket, Metrics: hooks.NewMetrics(prometheus.NewRegistry()), Log: s.Log, Erasures: s.Erasures,
	}
	return s
}

// As acts for a tenant.
func As(ctx context.Context, id uuid.UUID, user string, role tenant.Role) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: user, Role: role})
}

// Store puts an object where an upload's would be.
func (s *Site) Store(t *testing.T, ctx context.Context, id uuid.UUID, content []byte) (key string, sum []byte) {
	t.Helper()
	key = object.Keys{Tenant: storagetest.TenantOf(t, ctx), Project: object.DefaultProject, Upload: id}.Original(1)
	s.put(t, key, content)
	h := sha256.Sum256(content)
	return key, h[:]
}

// Put stores [Content] under a key.
func (s *Site) Put(t *testing.T, key string) {
	t.Helper()
	s.put(t, key, Content)
}

func (s *Site) put(t *testing.T, key string, content []byte) {
	t.Helper()
	stack.Must(t, s.Bucket.Put(t.Context(), key, "application/octet-stream", bytes.NewReader(content), int64(len(content))))
}

// Multipart begins a multipart upload with one part.
func (s *Site) Multipart(t *testing.T, key string, part []byte) (id, etag string) {
	t.Helper()
	client := stack.Get(t, ground.S3).Client("")
	begun, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: &key})
	stack.Must(t, err)
	out, err := client.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &s.bucket, Key: &key, UploadId: begun.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(part),
	})
	stack.Must(t, err)
	return *begun.UploadId, *out.ETag
}

// WantObject fails the test unless an object is there, or is not.
func (s *Site) WantObject(t *testing.T, key string, there bool) {
	t.Helper()
	_, err := s.Bucket.Size(t.Context(), key)
	if there {
		stack.Must(t, err)
		return
	}
	stack.WantErr(t, err, object.ErrNoObject)
}

// S3 lists all that the bucket holds.
func (s *Site) S3(t *testing.T) (all []string) {
	t.Helper()
	for o, err := range s.Bucket.Objects(t.Context()) {
		stack.Must(t, err)
		all = append(all, o.Key+" "+o.Since.String())
	}
	for m, err := range s.Bucket.Multiparts(t.Context()) {
		stack.Must(t, err)
		all = append(all, m.Key+" "+m.MultipartID)
	}
	return all
}
