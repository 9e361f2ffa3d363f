package object

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A Listed is an object or a multipart upload in a listing of S3.
type Listed struct {
	Key         string
	MultipartID string    // "" for an object
	Since       time.Time // when it was stored, or created
}

// Objects yields all objects of all tenants, page by page, in the byte order of their keys without the quarantine's prefix. So
// all objects of an upload come together.
func (b *Bucket) Objects(ctx context.Context) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		next, stop := iter.Pull2(b.objectsUnder(ctx, quarantinePrefix+allPrefix))
		defer stop()
		q, qErr, more := next()
		// yieldQuarantined yields those before the key, or all remaining ones for "".
		yieldQuarantined := func(key string) bool {
			for more && (qErr != nil || key == "" || strings.TrimPrefix(q.Key, quarantinePrefix) < key) {
				if !yield(q, qErr) || qErr != nil {
					return false
				}
				q, qErr, more = next()
			}
			return true
		}
		for o, err := range b.objectsUnder(ctx, allPrefix) {
			if err == nil && !yieldQuarantined(o.Key) {
				return
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
		yieldQuarantined("")
	}
}

// objectsUnder yields the objects below a prefix in the order of their keys.
func (b *Bucket) objectsUnder(ctx context.Context, prefix string) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		pages := s3.NewListObjectsV2Paginator(b.s3, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix})
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

// Multiparts yields all multipart uploads of all tenants that are in progress, page by page. It pages by keys alone, because
// versitygw refuses the marker within a key. If several have one key, as after a repeated request, the end of a page can hide
// some; a later call yields them, once those before have ended.
func (b *Bucket) Multiparts(ctx context.Context) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		for _, prefix := range prefixes(allPrefix) {
			for l, err := range b.multipartsUnder(ctx, prefix) {
				if !yield(l, err) || err != nil {
					return
				}
			}
		}
	}
}

func (b *Bucket) multipartsUnder(ctx context.Context, prefix string) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		in := &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &prefix}
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
