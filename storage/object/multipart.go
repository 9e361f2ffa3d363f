package object

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tramo/tramo/storage"
)

// octetStream is the media type of uploads in S3. The declared type is not trusted, and a browser must never run content
// that a link leads to.
const octetStream = "application/octet-stream"

// unsigned leaves the body out of a request's signature, to save a second SHA-256 over all bytes. The CRC32C, which S3
// compares the body with, is signed.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

// putRun stores a run as an object.
func (b *Bucket) putRun(ctx context.Context, key string, r *run) error {
	sum, err := r.checksum()
	if err != nil {
		return err
	}
	out, err := b.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: &key, ContentType: aws.String(octetStream),
		Body: r.reader(), ContentLength: &r.size, ChecksumCRC32C: &sum,
	}, unsigned)
	if err == nil {
		_, err = told("PutObject", "ETag", out.ETag)
	}
	if err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	return nil
}

// beginMultipart creates a multipart upload whose parts are checked by CRC32C, or, if copied is set, one
// that parts are copied into.
func (b *Bucket) beginMultipart(ctx context.Context, key string, copied bool) (id string, err error) {
	in := &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: &key, ContentType: aws.String(octetStream)}
	if !copied {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32c
	}
	out, err := b.s3.CreateMultipartUpload(ctx, in, unchecked)
	if err == nil {
		id, err = told("CreateMultipartUpload", "UploadId", out.UploadId)
	}
	if err != nil {
		return "", fmt.Errorf("create multipart upload: %w", err)
	}
	return id, nil
}

// putPart stores a run as a part. An absent multipart upload is [ErrNoObject].
func (b *Bucket) putPart(ctx context.Context, key, id string, number int32, r *run) (storage.Part, error) {
	sum, err := r.checksum()
	if err != nil {
		return storage.Part{}, err
	}
	part, err := b.uploadPart(ctx, &s3.UploadPartInput{Key: &key, UploadId: &id, PartNumber: &number, ChecksumCRC32C: &sum}, r)
	part.Checksum = sum
	return part, err
}

func (b *Bucket) uploadPart(ctx context.Context, in *s3.UploadPartInput, r *run, options ...func(*s3.Options)) (storage.Part, error) {
	in.Bucket, in.Body, in.ContentLength = &b.name, r.reader(), &r.size
	out, err := b.s3.UploadPart(ctx, in, append(options, unsigned)...)
	if isAbsent(err) {
		return storage.Part{}, ErrNoObject
	}
	var tag string
	if err == nil {
		tag, err = told("UploadPart", "ETag", out.ETag)
	}
	if err != nil {
		return storage.Part{}, fmt.Errorf("upload part %d: %w", *in.PartNumber, err)
	}
	return storage.Part{Number: *in.PartNumber, Size: r.size, ETag: tag}, nil
}

// completeMultipart makes the object from its parts. An absent multipart upload is [ErrNoObject]: it was aborted, or completed
// before.
func (b *Bucket) completeMultipart(ctx context.Context, key, id string, parts []storage.Part) error {
	done := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		done[i] = types.CompletedPart{PartNumber: &p.Number, ETag: &p.ETag}
		if p.Checksum != "" {
			done[i].ChecksumCRC32C = &p.Checksum
		}
	}
	out, err := b.s3.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.name, Key: &key, UploadId: &id, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	if isAbsent(err) {
		return ErrNoObject
	}
	if err == nil {
		_, err = told("CompleteMultipartUpload", "ETag", out.ETag)
	}
	if err != nil {
		return fmt.Errorf("complete multipart upload: %w", err)
	}
	return nil
}

// Abort aborts a multipart upload, which frees its parts. An absent one is no error.
func (b *Bucket) Abort(ctx context.Context, key, id string) error {
	_, err := b.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: &id})
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("abort multipart upload: %w", err)
	}
	return nil
}
