// Package object owns what Tramo keeps in S3: the keys, the objects and their tags, presigned links, and the store that
// writes uploads part by part ([Store]). Rows in package storage say where the bytes of an upload are; what S3 holds beyond
// them does not count. The package knows neither the upload protocols nor HTTP, and does not decide when an upload is
// complete or what becomes of it.
package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/sony/gobreaker/v2"
)

// ErrNoObject says that S3 has no object under the key, or no multipart upload with the id.
var ErrNoObject = errors.New("no such object")

// LinkLife is how long a link to the content of an upload works.
const LinkLife = 15 * time.Minute

// BucketConfig says where objects go. Credentials and region come from the AWS SDK's own chain.
type BucketConfig struct {
	Endpoint string `name:"s3-endpoint" placeholder:"URL" help:"URL of an S3 server other than AWS. Credentials and region come from the AWS SDK's own variables and files."`
	Name     string `name:"s3-bucket" placeholder:"NAME" help:"Bucket that stores the uploads."`
}

// Validate reports what is wrong with c.
func (c BucketConfig) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("TRAMO_S3_BUCKET: the name of a bucket is needed"))
	}
	if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")) {
		errs = append(errs, fmt.Errorf("TRAMO_S3_ENDPOINT: %q is not a URL such as https://s3.sa-east-1.amazonaws.com", c.Endpoint))
	}
	return errors.Join(errs...)
}

// A Bucket reads and writes whole objects. It is safe for concurrent use.
type Bucket struct {
	s3      *s3.Client
	sign    *s3.PresignClient
	name    string
	breaker *gobreaker.CircuitBreaker[struct{}]

	noPartCopy atomic.Bool // the store has said that it does not copy parts
	noTags     atomic.Bool // the store takes requests about tags for requests about objects, or refuses them
}

// OpenBucket makes a client; it sends nothing.
func OpenBucket(ctx context.Context, c BucketConfig) (*Bucket, error) {
	conf, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRetryer(func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff })
	}))
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration: %w", err)
	}
	if conf.Region == "" {
		conf.Region = "us-east-1"
	}
	breaker := newBreaker()
	client := s3.NewFromConfig(conf, func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, through(breaker))
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
			o.UsePathStyle = true // other servers than AWS seldom have a host name a bucket
		}
	})
	return &Bucket{s3: client, sign: s3.NewPresignClient(client), name: c.Name, breaker: breaker}, nil
}

// Ping reports whether the bucket is there and may be used. Its errors are for people: each says what to do, and the same
// fault is always the same text.
func (b *Bucket) Ping(ctx context.Context) error {
	_, err := b.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name})
	if err == nil {
		return nil
	}
	var answer *smithyhttp.ResponseError
	status := 0
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	switch status {
	case http.StatusNotFound:
		err = &pingError{"it does not exist: create it, or set TRAMO_S3_BUCKET to one that exists", err}
	case http.StatusForbidden, http.StatusUnauthorized:
		err = &pingError{"credentials refused: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may use the bucket", err}
	case http.StatusMovedPermanently:
		err = &pingError{"it is in another region: set AWS_REGION", err}
	default:
		err = &pingError{reason(err), err}
	}
	return fmt.Errorf("bucket %s: %w", b.name, err)
}

// A pingError says in place of its cause what a person needs to know.
type pingError struct {
	text  string
	cause error
}

func (e *pingError) Error() string { return e.text }
func (e *pingError) Unwrap() error { return e.cause }

// reason is an error of S3 without what differs each time: the ids of requests, and ports of ours.
func reason(err error) string {
	var api smithy.APIError
	var answer *smithyhttp.ResponseError
	var network *net.OpError
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return "S3 does not answer, and is tried again in a moment"
	case errors.As(err, &answer) && errors.As(err, &api):
		return fmt.Sprintf("S3 answers %d %s", answer.HTTPStatusCode(), api.ErrorCode())
	case errors.As(err, &answer):
		return fmt.Sprintf("S3 answers %d", answer.HTTPStatusCode())
	case errors.As(err, &network) && network.Addr != nil:
		return fmt.Sprintf("%s %s: %s", network.Op, network.Addr, network.Err)
	}
	return err.Error()
}

// Put stores an object of size bytes. body must be seekable for a request to be repeated.
func (b *Bucket) Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	out, err := b.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: &key, Body: body, ContentLength: &size, ContentType: &contentType,
	})
	if err == nil {
		_, err = told("PutObject", "ETag", out.ETag)
	}
	if err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	return nil
}

// Get opens an object; the caller closes it. An absent one is [ErrNoObject].
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	out, err := b.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if isAbsent(err) {
		return nil, 0, ErrNoObject
	}
	if err != nil {
		return nil, 0, fmt.Errorf("get object: %w", err)
	}
	if out.ContentLength == nil {
		return nil, 0, errors.Join(lacking("GetObject", "Content-Length"), out.Body.Close())
	}
	return out.Body, *out.ContentLength, nil
}

// Size returns an object's size in bytes. An absent one is [ErrNoObject].
func (b *Bucket) Size(ctx context.Context, key string) (int64, error) {
	out, err := b.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if isAbsent(err) {
		return 0, ErrNoObject
	}
	if err == nil {
		_, err = told("HeadObject", "ETag", out.ETag) // something that is not S3 may answer 200 to everything
	}
	if err == nil && out.ContentLength == nil {
		err = lacking("HeadObject", "Content-Length")
	}
	if err != nil {
		return 0, fmt.Errorf("head object: %w", err)
	}
	return *out.ContentLength, nil
}

// Delete removes an object; removing an absent one is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if _, err := b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}); err != nil {
		return fmt.Errorf("delete object: %w", err)
	}
	return nil
}

// Tag sets one tag on an object of size bytes and removes all others. A store that has no tags may have taken the tag for the
// object's content: that is an error, the object is gone, and next time there is [ErrUnsupported].
func (b *Bucket) Tag(ctx context.Context, key string, size int64, name, value string) error {
	if b.noTags.Load() {
		return lacking("PutObjectTagging", "effect")
	}
	_, err := b.s3.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{
		Bucket: &b.name, Key: &key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: &name, Value: &value}}},
	})
	if err != nil {
		return fmt.Errorf("tag object: %w", err)
	}
	if got, err := b.Size(ctx, key); err != nil || got != size {
		if err == nil || errors.Is(err, ErrNoObject) {
			b.noTags.Store(true)
		}
		return errors.Join(fmt.Errorf("the tagged object has %d bytes, not %d", got, size), err)
	}
	return nil
}

// LinkFor is [Bucket.LinkAs] for an object that is served as it was stored. life is a week at most, and [Bucket.LinksUntil] may cut
// it short.
func (b *Bucket) LinkFor(ctx context.Context, of Keys, key string, life time.Duration) (string, error) {
	if err := of.check(ctx, key); err != nil {
		return "", err
	}
	out, err := b.sign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key}, s3.WithPresignExpires(life))
	if err != nil {
		return "", fmt.Errorf("sign link: %w", err)
	}
	return out.URL, nil
}

// LinksUntil returns until when a link works that is made now for so long. One that temporary credentials have signed
// works no longer than they do.
func (b *Bucket) LinksUntil(ctx context.Context, life time.Duration) (time.Time, error) {
	until := time.Now().Add(life).UTC()
	credentials, err := b.s3.Options().Credentials.Retrieve(ctx)
	if err != nil {
		return until, fmt.Errorf("read the credentials: %w", err)
	}
	if credentials.CanExpire && credentials.Expires.Before(until) {
		until = credentials.Expires.UTC()
	}
	return until, nil
}

// isAbsent reports whether S3 said that the object or the multipart upload does not exist. Any other 404, such as that of a
// missing bucket or of a proxy, says nothing about either, and taking it as absence would lose bytes that are safe. S3
// answers HEAD without a body, which the SDK reports as NotFound.
func isAbsent(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "NoSuchKey", "NotFound", "NoSuchUpload":
		return true
	}
	return false
}
