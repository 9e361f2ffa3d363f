package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// A Presentation says as what S3 serves an object that a link leads to, whatever it was stored as.
type Presentation struct {
	Type        string        // Content-Type
	Disposition string        // Content-Disposition (RFC 6266)
	Method      string        // GET or HEAD: a link works for one of both
	Life        time.Duration // how long the link works, a week at most
	Cache       string        // Cache-Control
}

// LinkAs returns a URL at which anyone can read an object of an upload while it works. Make one only after the upload's row was
// read in the caller's tenant and says that it has been scanned, and after the access was audited. Whatever the row says, a key
// that is not one of that upload's, or an upload that is none of the caller's, is [ErrForeignKey]: so a wrong row links nothing of
// another tenant's. The object is served as p says. Nobody can change that in the link: it is signed.
func (b *Bucket) LinkAs(ctx context.Context, of Keys, key string, p Presentation) (string, error) {
	if err := of.check(ctx, key); err != nil {
		return "", err
	}
	return b.linkAs(ctx, key, p)
}

func (b *Bucket) linkAs(ctx context.Context, key string, p Presentation) (string, error) {
	expires := s3.WithPresignExpires(p.Life)
	get := &s3.GetObjectInput{
		Bucket: &b.name, Key: &key, ResponseContentType: &p.Type, ResponseContentDisposition: &p.Disposition,
		ResponseCacheControl: &p.Cache,
	}
	if p.Method != http.MethodHead {
		out, err := b.sign.PresignGetObject(ctx, get, expires)
		if err != nil {
			return "", fmt.Errorf("sign link: %w", err)
		}
		return out.URL, nil
	}
	out, err := b.sign.PresignHeadObject(ctx, &s3.HeadObjectInput{
		Bucket: get.Bucket, Key: get.Key, ResponseContentType: get.ResponseContentType,
		ResponseContentDisposition: get.ResponseContentDisposition, ResponseCacheControl: get.ResponseCacheControl,
	}, expires)
	if err != nil {
		return "", fmt.Errorf("sign link: %w", err)
	}
	return out.URL, nil
}

// ErrNoSuchRange says that an object has none of the bytes that were asked for.
var ErrNoSuchRange = errors.New("object has no such range")

// An Opened object, or a range of one.
type Opened struct {
	io.ReadCloser
	Size         int64  // bytes to read
	ContentRange string // RFC 9110, section 14.4; "" for a whole object
}

// Open opens an object, or the range of it that a header Range asks for, under the same conditions as [Bucket.LinkAs]. An absent
// object is [ErrNoObject].
func (b *Bucket) Open(ctx context.Context, of Keys, key, byteRange string) (*Opened, error) {
	if err := of.check(ctx, key); err != nil {
		return nil, err
	}
	get := &s3.GetObjectInput{Bucket: &b.name, Key: &key}
	if byteRange != "" && !strings.Contains(byteRange, ",") { // S3 serves one range; several may be ignored (RFC 9110, section 14.2)
		get.Range = &byteRange
	}
	out, err := b.s3.GetObject(ctx, get, func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	var api smithy.APIError
	switch {
	case isAbsent(err):
		return nil, ErrNoObject
	case errors.As(err, &api) && api.ErrorCode() == "InvalidRange":
		return nil, ErrNoSuchRange
	case err != nil:
		return nil, fmt.Errorf("get object: %w", err)
	}
	if out.ContentLength == nil {
		return nil, errors.Join(lacking("GetObject", "Content-Length"), out.Body.Close())
	}
	return &Opened{out.Body, *out.ContentLength, aws.ToString(out.ContentRange)}, nil
}

// Origin returns where links lead: a scheme and a host.
func (b *Bucket) Origin() (string, error) {
	o := b.s3.Options()
	at, err := o.EndpointResolverV2.ResolveEndpoint(context.Background(), s3.EndpointParameters{
		Bucket: &b.name, Region: &o.Region, Endpoint: o.BaseEndpoint, ForcePathStyle: &o.UsePathStyle,
	})
	if err != nil {
		return "", fmt.Errorf("resolve the bucket's address: %w", err)
	}
	return at.URI.Scheme + "://" + at.URI.Host, nil
}
