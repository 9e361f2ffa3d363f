package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

// bareParallel is how many parts of an upload the bare client has under way. More are not faster here.
const bareParallel = 4

// A bareClient uploads straight to S3 through presigned URLs, so that nothing is hashed and only URLs are signed: the
// most that a server before S3 can hope for.
type bareClient struct {
	s3     *s3.Client
	sign   *s3.PresignClient
	bucket string
	urls   chan string // to PutObject, signed beforehand
}

// bareUploads numbers keys.
var bareUploads atomic.Int64

func newKey() *string { return aws.String(fmt.Sprintf("bare/%d", bareUploads.Add(1))) }

func (s *stand) bare(endpoint string) *bareClient {
	client := s3.New(s.S3.Client(endpoint).Options(), func(o *s3.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
	return &bareClient{s3: client, sign: s3.NewPresignClient(client), bucket: s.S3.Bucket(), urls: make(chan string, 1024)}
}

// prepare makes ready what is not to be measured of n small uploads: the bare client's signatures.
func (sv *server) prepare(ctx context.Context, n int) error {
	b := sv.bare
	for range n {
		if b == nil {
			break
		}
		r, err := b.sign.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &b.bucket, Key: newKey()})
		if err != nil {
			return err
		}
		b.urls <- r.URL
	}
	return nil
}

// upload sends size bytes with one PutObject, or in parts.
func (b *bareClient) upload(ctx context.Context, size int64) error {
	if size > partSize {
		return b.multipart(ctx, size)
	}
	_, err := put(ctx, <-b.urls, size)
	return err
}

func (b *bareClient) multipart(ctx context.Context, size int64) error {
	key := newKey()
	begun, err := b.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &b.bucket, Key: key})
	if err != nil {
		return err
	}
	parts := make([]types.CompletedPart, partsOf(size))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bareParallel)
	for i := range parts {
		g.Go(func() error {
			number := int32(i + 1)
			r, err := b.sign.PresignUploadPart(ctx, &s3.UploadPartInput{Bucket: &b.bucket, Key: key, UploadId: begun.UploadId, PartNumber: &number})
			if err != nil {
				return err
			}
			tag, err := put(ctx, r.URL, min(partSize, size-int64(i)*partSize))
			parts[i] = types.CompletedPart{ETag: &tag, PartNumber: &number}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = b.s3.CompleteMultipartUpload(context.WithoutCancel(ctx), &s3.CompleteMultipartUploadInput{ // Wait has ended ctx
		Bucket: &b.bucket, Key: key, UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}

// put sends size bytes to a presigned URL and returns the entity tag.
func put(ctx context.Context, url string, size int64) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, url, io.NopCloser(io.LimitReader(&endless{}, size)))
	if err != nil {
		return "", err
	}
	r.ContentLength = size
	h, _, err := answered(r, http.StatusOK)
	return h.Get("ETag"), err
}

// partsOf is how many parts an upload of size bytes has.
func partsOf(size int64) int { return int((size + partSize - 1) / partSize) }
