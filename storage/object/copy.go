package object

import (
	"context"
	"crypto/md5" //nolint:gosec // an ETag is one
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/tramo/tramo/storage"
)

// A multipart upload that parts are copied into is created without a checksum algorithm. With one, S3 requires the checksum
// of each part to complete it, and not all servers know that of a copied range: versitygw 1.8.0 returns that of the whole
// source. Parts that are sent are checked by their MD5 instead, and the whole object by its SHA-256 when it is processed.

// errNoCopySource says that S3 does not have the object to copy.
var errNoCopySource = errors.New("no object to copy")

// unchecked keeps the SDK from choosing a checksum algorithm by itself.
func unchecked(o *s3.Options) {
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
}

// copyPart copies a span of another object, or the whole object, into a part. An absent multipart upload is [ErrNoObject],
// an absent source errNoCopySource.
func (b *Bucket) copyPart(ctx context.Context, key, id string, number int32, from string, s span, whole bool) (storage.Part, error) {
	in := &s3.UploadPartCopyInput{
		Bucket: &b.name, Key: &key, UploadId: &id, PartNumber: &number,
		CopySource: aws.String(b.name + "/" + from), // keys need no escaping in URLs
	}
	if !whole {
		in.CopySourceRange = aws.String(byteRange(s.start, s.end))
	}
	out, err := b.s3.UploadPartCopy(ctx, in)
	if saysUnsupported(err) {
		b.noPartCopy.Store(true)
	}
	var tag string
	switch {
	case err != nil:
	case out.CopyPartResult == nil:
		err = lacking("UploadPartCopy", "CopyPartResult")
	default:
		tag, err = told("UploadPartCopy", "ETag", out.CopyPartResult.ETag)
	}
	var api smithy.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode() == "NoSuchKey":
		return storage.Part{}, errNoCopySource
	case isAbsent(err):
		return storage.Part{}, ErrNoObject
	case err != nil:
		return storage.Part{}, fmt.Errorf("copy part %d: %w", number, err)
	}
	return storage.Part{Number: number, Size: s.size(), ETag: tag}, nil
}

// copiesParts reports whether the store may be asked to copy parts: it has not said that it does not.
func (b *Bucket) copiesParts() bool { return !b.noPartCopy.Load() }

// putConcatenatedPart stores a run as a part beside copied ones. An absent multipart upload is [ErrNoObject].
func (b *Bucket) putConcatenatedPart(ctx context.Context, key, id string, number int32, r *run) (storage.Part, error) {
	sum := md5.New() //nolint:gosec // an ETag is one
	err := r.pieces(func(p []byte) error {
		_, err := sum.Write(p)
		return err
	})
	if err != nil {
		return storage.Part{}, err
	}
	return b.uploadPart(ctx, &s3.UploadPartInput{
		Key: &key, UploadId: &id, PartNumber: &number, ContentMD5: aws.String(base64.StdEncoding.EncodeToString(sum.Sum(nil))),
	}, r, unchecked)
}

// getRange opens the bytes of an object from start to before end; the caller closes it. An absent object is
// [ErrNoObject].
func (b *Bucket) getRange(ctx context.Context, key string, start, end int64) (io.ReadCloser, error) {
	out, err := b.s3.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &b.name, Key: &key, Range: aws.String(byteRange(start, end)),
	}, func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired }) // S3 has none of a range
	if isAbsent(err) {
		return nil, ErrNoObject
	}
	if err != nil {
		return nil, fmt.Errorf("get object: %w", err)
	}
	return out.Body, nil
}

// byteRange is RFC 9110, section 14.1.2, which names the last byte.
func byteRange(start, end int64) string { return fmt.Sprintf("bytes=%d-%d", start, end-1) }
