package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/storage"
)

const (
	// maxCopy is the largest object that one request copies (Amazon S3 API Reference, CopyObject).
	maxCopy = 5 << 30 // bytes
	// copySpan is how much of a larger one each request copies; times [MaxParts] it is more than S3's largest object.
	copySpan = 1 << 30 // bytes
	// sendSpan is how much this process holds of an object that it copies itself.
	sendSpan = 8 << 20 // bytes
)

// Copy copies an object of size bytes to another key without its tags, and checks the size of the copy. The source stays. An
// absent source is [ErrNoObject]. The bytes of a store that copies nothing go through this process.
func (b *Bucket) Copy(ctx context.Context, from, to string, size int64) error {
	return b.copyIn(ctx, from, to, size, maxCopy, copySpan)
}

func (b *Bucket) copyIn(ctx context.Context, from, to string, size, most, each int64) error {
	err := b.copyByStore(ctx, from, to, size, most, each)
	if errors.Is(err, ErrUnsupported) {
		err = b.copyThrough(ctx, from, to, size)
		if err == nil {
			err = b.checkCopy(ctx, to, size)
		}
	}
	return err
}

// copyByStore has the store copy the bytes.
func (b *Bucket) copyByStore(ctx context.Context, from, to string, size, most, each int64) error {
	var err error
	if size <= most {
		err = b.copyWhole(ctx, from, to)
	} else {
		err = b.copyInParts(ctx, to, size, each, func(id string, number int32, s span) (storage.Part, error) {
			return b.copyPart(ctx, to, id, number, from, s, false)
		})
	}
	if err == nil {
		err = b.untag(ctx, to)
	}
	if err != nil {
		return err
	}
	return b.checkCopy(ctx, to, size) // at last: gofakes3 takes the removal of tags for that of the object
}

// checkCopy makes sure of what the store has said that it has done.
func (b *Bucket) checkCopy(ctx context.Context, key string, size int64) error {
	got, err := b.Size(ctx, key)
	switch {
	case errors.Is(err, ErrNoObject):
		return lacking("CopyObject", "copy in the store")
	case err != nil:
		return fmt.Errorf("check the copy: %w", err)
	case got != size:
		return fmt.Errorf("the copy has %d bytes, not %d", got, size)
	}
	return nil
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

// copyThrough reads an object and stores it under another key.
func (b *Bucket) copyThrough(ctx context.Context, from, to string, size int64) error {
	most := max(sendSpan, (size+MaxParts-1)/MaxParts)
	held := make([]byte, min(most, size))
	if size <= most {
		if err := b.readRange(ctx, from, span{end: size}, held); err != nil {
			return err
		}
		return b.Put(ctx, to, octetStream, bytes.NewReader(held), size)
	}
	return b.copyInParts(ctx, to, size, most, func(id string, number int32, s span) (storage.Part, error) {
		part := held[:s.size()]
		if err := b.readRange(ctx, from, s, part); err != nil {
			return storage.Part{}, err
		}
		return b.putConcatenatedPart(ctx, to, id, number, runOf(part))
	})
}

// readRange fills p with the bytes of a span of an object.
func (b *Bucket) readRange(ctx context.Context, key string, s span, p []byte) error {
	body, err := b.getRange(ctx, key, s.start, s.end)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.ReadFull(body, p); err != nil {
		return fmt.Errorf("read object: %w", err)
	}
	return nil
}

// copyInParts puts an object together, of parts that put stores. It aborts its multipart upload if it fails. The reconciler
// aborts those of processes that die.
func (b *Bucket) copyInParts(ctx context.Context, to string, size, most int64, put func(id string, number int32, s span) (storage.Part, error)) error {
	id, err := b.beginMultipart(ctx, to, true)
	if err != nil {
		return err
	}
	var parts []storage.Part
	for start := int64(0); start < size; start += most {
		part, err := put(id, int32(len(parts)+1), span{start: start, end: min(start+most, size)})
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

// untag removes all tags of an object, which a copy keeps. A store without tags has none to remove.
func (b *Bucket) untag(ctx context.Context, key string) error {
	if b.noTags.Load() {
		return nil
	}
	_, err := b.s3.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: &b.name, Key: &key})
	if err != nil && !errors.Is(err, ErrUnsupported) && !isAbsent(err) { // checkCopy sees that
		return fmt.Errorf("remove the tags of an object: %w", err)
	}
	return nil
}
