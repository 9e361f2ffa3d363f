package hookstest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// Serve gives the site's uploads a store and leases, so that they can be opened.
func (s *Site) Serve(t *testing.T) {
	t.Helper()
	u := s.Uploads
	var err error
	u.Store, err = object.NewStore(s.API, s.Bucket, object.DefaultConfig(), object.NewMetrics(prometheus.NewRegistry(), s.Bucket), u.Log)
	stack.Must(t, err)
	t.Cleanup(func() { // a flush that fails beside another may end after its write
		stack.Until(t, "all buffers are given back", func() bool { return u.Store.Close() == nil })
	})
	u.Admission, u.Expiry = s.Admission, hooks.DefaultExpiry()
	u.Leases = s.Leases(t, "test")
}

// Leases takes leases for a replica, until the test ends.
func (s *Site) Leases(t *testing.T, replica string) *lease.Manager {
	t.Helper()
	leases := lease.NewManager(s.API, replica, time.Minute, s.Uploads.Log)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- leases.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		stack.Must(t, stack.Receive(t, "end of the leases", ended))
	})
	waiting, stop := context.WithTimeout(t.Context(), stack.Patience)
	defer stop()
	stack.Must(t, leases.Registered(waiting))
	return leases
}

// Through has the site reach S3 through a proxy from now on, before [Site.Serve].
func (s *Site) Through(t *testing.T) *stack.S3Proxy {
	t.Helper()
	proxy, err := stack.NewS3Proxy(stack.Get(t, ground.S3).Endpoint())
	stack.Must(t, err)
	t.Cleanup(proxy.Stop)
	s.Bucket, err = object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: proxy.Endpoint(), Name: s.bucket})
	stack.Must(t, err)
	s.Uploads.Bucket = s.Bucket
	return proxy
}

// Post makes an upload as a POST does.
func (s *Site) Post(t *testing.T, ctx context.Context, r hooks.Request) uuid.UUID {
	t.Helper()
	a, err := s.Uploads.Create(ctx, r)
	stack.Must(t, err)
	return a.ID
}

// Patch sends bytes to an upload from its offset on, and finishes it if these are its last, as a PATCH does.
func (s *Site) Patch(ctx context.Context, id uuid.UUID, body object.Body, check *object.Check) error {
	u, err := s.Uploads.Open(ctx, id, stack.Patience, nil)
	if err != nil {
		return err
	}
	defer u.Close(ctx)
	row := u.Row()
	if _, err := u.Write(ctx, row.Received, body, check); err != nil {
		return err
	}
	if row = u.Row(); row.SizeDeferred || row.Received < row.Size {
		return nil
	}
	return u.Finish(ctx)
}

// A Whole body ends where its client says.
type Whole struct{ *bytes.Reader }

// Body is a body with these bytes.
func Body(content []byte) Whole { return Whole{bytes.NewReader(content)} }

// Ended implements [object.Body].
func (Whole) Ended() bool { return true }

// Cut implements [object.Body].
func (Whole) Cut() error { return nil }

// Terminate is what a DELETE comes to.
func (s *Site) Terminate(ctx context.Context, id uuid.UUID) error {
	waiting, cancel := context.WithTimeout(ctx, stack.Patience)
	defer cancel()
	u, err := s.Uploads.Acquire(waiting, id, nil)
	if err != nil {
		return err
	}
	defer u.Close(ctx)
	if err := u.ContinueToEnd(ctx); err != nil {
		return err
	}
	return u.Cancel(ctx)
}

// Stored counts the bytes that S3 has of a tenant's uploads: see [Site.StoredOf].
func (s *Site) Stored(t testing.TB, tenant uuid.UUID) (bytes int64) {
	t.Helper()
	for _, n := range s.StoredOf(t, tenant) {
		bytes += n
	}
	return bytes
}

// StoredOf counts the bytes that S3 has of each of a tenant's uploads: of objects, those in quarantine included and thumbnails not,
// and of the parts of multipart uploads.
func (s *Site) StoredOf(t testing.TB, tenant uuid.UUID) map[uuid.UUID]int64 {
	t.Helper()
	bytes := make(map[uuid.UUID]int64)
	add := func(key string, size int64) {
		keys, _ := object.ParseKey(key)
		bytes[keys.Upload] += size
	}
	client := stack.Get(t, ground.S3).Client("") // not through the proxy
	for _, prefix := range []string{object.TenantPrefix(tenant), "quarantine/" + object.TenantPrefix(tenant)} {
		objects := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix})
		for objects.HasMorePages() {
			page, err := objects.NextPage(t.Context())
			stack.Must(t, err)
			for _, o := range page.Contents {
				if !strings.Contains(*o.Key, "/thumbnails/") {
					add(*o.Key, *o.Size)
				}
			}
		}
		begun, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: &prefix})
		stack.Must(t, err)
		for _, m := range begun.Uploads {
			parts := s3.NewListPartsPaginator(client, &s3.ListPartsInput{Bucket: &s.bucket, Key: m.Key, UploadId: m.UploadId})
			for parts.HasMorePages() {
				page, err := parts.NextPage(t.Context())
				var api smithy.APIError
				if errors.As(err, &api) && api.ErrorCode() == "NoSuchUpload" {
					break // meanwhile
				}
				stack.Must(t, err)
				for _, p := range page.Parts {
					add(*m.Key, *p.Size)
				}
			}
		}
	}
	return bytes
}

// Charged is what a tenant is charged.
func (s *Site) Charged(t testing.TB, tenant uuid.UUID) int64 {
	t.Helper()
	return int64(s.Count(t, `select charged_bytes from tenants where id = $1`, tenant))
}
