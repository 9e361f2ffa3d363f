package object

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A Presentation says as what S3 serves an object that a link leads to, whatever it was stored as.
type Presentation struct {
	Type        string // Content-Type
	Disposition string // Content-Disposition (RFC 6266)
	Method      string // GET or HEAD: a link works for one of both
}

// LinkAs is [Bucket.Link] for an object that is served as p says. Nobody can change that in the link: it is signed.
func (b *Bucket) LinkAs(ctx context.Context, of Keys, key string, p Presentation) (string, error) {
	if err := of.check(ctx, key); err != nil {
		return "", err
	}
	expires := s3.WithPresignExpires(LinkLife)
	get := &s3.GetObjectInput{
		Bucket: &b.name, Key: &key, ResponseContentType: &p.Type, ResponseContentDisposition: &p.Disposition,
		ResponseCacheControl: aws.String("private"), // the link is for whom it was made, no cache between
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
