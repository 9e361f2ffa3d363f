package object

import "context"

// MaxCopy is what Copy copies with one request, in bytes.
const MaxCopy = maxCopy

// CopyIn is Copy with other limits than S3's, which no test's object comes near.
func (b *Bucket) CopyIn(ctx context.Context, from, to string, size, most, span int64) error {
	return b.copyIn(ctx, from, to, size, most, span)
}
