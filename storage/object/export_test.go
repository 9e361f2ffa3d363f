package object

import "context"

// MaxCopy is what Copy copies with one request, in bytes.
const MaxCopy = maxCopy

// SendSpan is how much of an object this process holds when it copies one itself, in bytes.
const SendSpan = sendSpan

// CopyIn is Copy with other limits than S3's, which no test's object comes near.
func (b *Bucket) CopyIn(ctx context.Context, from, to string, size, most, each int64) error {
	return b.copyIn(ctx, from, to, size, most, each)
}
