package object

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A Listed object or multipart upload is one that S3 says is there.
type Listed struct {
	Key         string
	MultipartID string    // "" for an object
	Since       time.Time // when it was stored, or begun
}

// Objects yields all objects of all tenants in the order of their keys, in bytes, page by page.
func (b *Bucket) Objects(ctx context.Context) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		pages := s3.NewListObjectsV2Paginator(b.s3, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: aws.String(allPrefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(Listed{}, fmt.Errorf("list objects: %w", err))
				return
			}
			for _, o := range page.Contents {
				if !yield(Listed{Key: aws.ToString(o.Key), Since: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

// Multiparts yields all multipart uploads of all tenants that have been begun and not ended, page by page. It pages by keys
// alone, since versitygw refuses the marker within a key. Of several under one key, as a repeated request leaves them, the
// end of a page can hide some; once those that it shows have ended, they come forward.
func (b *Bucket) Multiparts(ctx context.Context) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		in := &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: aws.String(allPrefix)}
		for {
			page, err := b.s3.ListMultipartUploads(ctx, in)
			if err != nil {
				yield(Listed{}, fmt.Errorf("list multipart uploads: %w", err))
				return
			}
			for _, u := range page.Uploads {
				if !yield(Listed{Key: aws.ToString(u.Key), MultipartID: aws.ToString(u.UploadId), Since: aws.ToTime(u.Initiated)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) || page.NextKeyMarker == nil {
				return
			}
			in.KeyMarker = page.NextKeyMarker
		}
	}
}

// Abort ends a multipart upload and frees its parts; ending an absent one is no error.
func (b *Bucket) Abort(ctx context.Context, key, multipartID string) error {
	return b.abortMultipart(ctx, key, multipartID)
}
