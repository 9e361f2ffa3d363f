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
			if err == nil && strings.HasPrefix(o.Key, scratchPrefix) {
				continue
			}
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
		for token := ""; ; {
			page, next, err := b.listObjects(ctx, prefix, token)
			if err != nil {
				yield(Listed{}, fmt.Errorf("list objects: %w", err))
				return
			}
			for _, o := range page {
				if !yield(o, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}

// listObjects returns a page of a list, and where the next one begins, "" for nowhere. What has no key or no date would be
// taken for something else, or for something old, and be deleted: it is an error.
func (b *Bucket) listObjects(ctx context.Context, prefix, token string) (page []Listed, next string, err error) {
	const operation = "ListObjectsV2"
	in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix}
	if token != "" {
		in.ContinuationToken = &token
	}
	out, err := b.s3.ListObjectsV2(ctx, in)
	if isAbsent(err) { // some stores say so of a list of nothing
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	for _, o := range out.Contents {
		var l Listed
		if l.Key, err = told(operation, "Key", o.Key); err != nil {
			return nil, "", err
		}
		if l.Since, err = told(operation, "LastModified", o.LastModified); err != nil {
			return nil, "", err
		}
		page = append(page, l)
	}
	next, err = following(operation, "NextContinuationToken", token, out.IsTruncated, out.NextContinuationToken)
	return page, next, err
}

// following returns where the page after this one begins, "" for nowhere.
func following(operation, field, here string, truncated *bool, next *string) (string, error) {
	if !aws.ToBool(truncated) {
		return "", nil
	}
	if next == nil || *next == here {
		return "", lacking(operation, "new "+field)
	}
	return told(operation, field, next)
}

// Multiparts yields all multipart uploads of all tenants that are in progress, page by page. It pages by keys alone, because
// versitygw refuses the marker within a key. If several have one key, as after a repeated request, the end of a page can hide
// some; a later call yields them, once those before have ended.
func (b *Bucket) Multiparts(ctx context.Context) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		for _, prefix := range prefixes(allPrefix) {
			for l, err := range b.multipartsUnder(ctx, prefix) {
				if err == nil && strings.HasPrefix(l.Key, scratchPrefix) {
					continue
				}
				if !yield(l, err) || err != nil {
					return
				}
			}
		}
	}
}

func (b *Bucket) multipartsUnder(ctx context.Context, prefix string) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		for marker := ""; ; {
			page, next, err := b.listMultiparts(ctx, prefix, marker)
			if err != nil {
				yield(Listed{}, fmt.Errorf("list multipart uploads: %w", err))
				return
			}
			for _, u := range page {
				if !yield(u, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			marker = next
		}
	}
}

// listMultiparts is listObjects for multipart uploads.
func (b *Bucket) listMultiparts(ctx context.Context, prefix, marker string) (page []Listed, next string, err error) {
	const operation = "ListMultipartUploads"
	in := &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &prefix}
	if marker != "" {
		in.KeyMarker = &marker
	}
	out, err := b.s3.ListMultipartUploads(ctx, in)
	if isAbsent(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	for _, u := range out.Uploads {
		var l Listed
		if l.Key, err = told(operation, "Key", u.Key); err != nil {
			return nil, "", err
		}
		if l.MultipartID, err = told(operation, "UploadId", u.UploadId); err != nil {
			return nil, "", err
		}
		if l.Since, err = told(operation, "Initiated", u.Initiated); err != nil {
			return nil, "", err
		}
		page = append(page, l)
	}
	next, err = following(operation, "NextKeyMarker", marker, out.IsTruncated, out.NextKeyMarker)
	return page, next, err
}
