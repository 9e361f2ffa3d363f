package object

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/storage"
)

const (
	// maxCopy is the largest object that one request copies (Amazon S3 API Reference, CopyObject).
	maxCopy = 5 << 30 // bytes
	// copySpan is how much of a larger one each request copies; times [MaxParts] it is more than S3's largest object.
	copySpan = 1 << 30 // bytes
)

// Copy copies an object of size bytes to another key without its tags, and checks the size of the copy. The source stays. An
// absent source is [ErrNoObject].
func (b *Bucket) Copy(ctx context.Context, from, to string, size int64) error {
	return b.copyIn(ctx, from, to, size, maxCopy, copySpan)
}

func (b *Bucket) copyIn(ctx context.Context, from, to string, size, most, span int64) error {
	var err error
	if size <= most {
		err = b.copyWhole(ctx, from, to)
	} else {
		err = b.copyInParts(ctx, from, to, size, span)
	}
	if err != nil {
		return err
	}
	got, err := b.Size(ctx, to)
	switch {
	case err != nil:
		return fmt.Errorf("check the copy: %w", err)
	case got != size:
		return fmt.Errorf("the copy has %d bytes, not %d", got, size)
	}
	return b.untag(ctx, to)
}

func (b *Bucket) copyWhole(ctx context.Context, from, to string) error {
	_, err := b.s3.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &b.name, Key: &to, CopySource: aws.String(b.name + "/" + from), // keys need no escaping in URLs
	})
	if isAbsent(err) {
		return ErrNoObject
	}
	if err != nil {
		return fmt.Errorf("copy object: %w", err)
	}
	return nil
}

// copyInParts aborts its multipart upload if it fails. The reconciler aborts those of processes that die.
func (b *Bucket) copyInParts(ctx context.Context, from, to string, size, most int64) error {
	id, err := b.beginMultipart(ctx, to, true)
	if err != nil {
		return err
	}
	var parts []storage.Part
	for start := int64(0); start < size; start += most {
		part, err := b.copyPart(ctx, to, id, int32(len(parts)+1), from, span{start: start, end: min(start+most, size)}, false)
		if err != nil {
			if errors.Is(err, errNoCopySource) {
				err = ErrNoObject
			}
			return errors.Join(err, b.Abort(context.WithoutCancel(ctx), to, id))
		}
		parts = append(parts, part)
	}
	return b.completeMultipart(ctx, to, id, parts)
}

// untag removes all tags of an object, which a copy keeps.
func (b *Bucket) untag(ctx context.Context, key string) error {
	if _, err := b.s3.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: &b.name, Key: &key}); err != nil {
		return fmt.Errorf("remove the tags of an object: %w", err)
	}
	return nil
}
