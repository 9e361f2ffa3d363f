package object

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"strings"

	"github.com/tus/tusd/v2/pkg/handler"
)

// ChecksumAlgorithms are what a client may choose from, as Tus-Checksum-Algorithm lists them (tus 1.0.0,
// Checksum).
const ChecksumAlgorithms = "sha1,sha256,crc32"

// ErrChecksum says that a request's body is not what its Upload-Checksum says. None of it was kept.
var ErrChecksum = handler.NewError("ERR_CHECKSUM_MISMATCH", "body does not match Upload-Checksum", 460)

// ErrChecksumHeader says that an Upload-Checksum header cannot be understood.
var ErrChecksumHeader = errors.New("Upload-Checksum is not valid")

// A Checksum is what a client says of a request's body (tus 1.0.0, Checksum).
type Checksum struct {
	new func() hash.Hash
	sum []byte
}

// ParseChecksum reads an Upload-Checksum header: the name of an algorithm, a space, and the sum in Base64. Its
// errors wrap [ErrChecksumHeader].
func ParseChecksum(header string) (Checksum, error) {
	name, encoded, _ := strings.Cut(strings.TrimSpace(header), " ")
	algorithm, ok := map[string]func() hash.Hash{
		"sha1":   sha1.New,
		"sha256": sha256.New,
		"crc32":  func() hash.Hash { return crc32.NewIEEE() }, // its Sum is big-endian
	}[name]
	if !ok {
		return Checksum{}, fmt.Errorf("%w: the algorithm %q is none of %s", ErrChecksumHeader, name, ChecksumAlgorithms)
	}
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Checksum{}, fmt.Errorf("%w: the checksum is not Base64", ErrChecksumHeader)
	}
	if want := algorithm().Size(); len(sum) != want {
		return Checksum{}, fmt.Errorf("%w: a %s has %d bytes, not %d", ErrChecksumHeader, name, want, len(sum))
	}
	return Checksum{new: algorithm, sum: sum}, nil
}

type checksumKey struct{}

// WithChecksum makes the store hold back what a request brings until all of it has arrived and has this
// checksum. length is the body's, in bytes, or -1.
func WithChecksum(ctx context.Context, c Checksum, length int64) context.Context {
	return context.WithValue(ctx, checksumKey{}, &check{
		Hash: c.new(), want: c.sum, left: length, known: length >= 0, verified: make(chan struct{}),
	})
}

// A check compares a body with its checksum. A nil check finds everything right.
type check struct {
	hash.Hash
	want     []byte
	left     int64 // bytes to come, if known
	known    bool
	verified chan struct{} // closed when the body is right
}

func checkIn(ctx context.Context) *check {
	c, _ := ctx.Value(checksumKey{}).(*check)
	return c
}

func (c *check) write(p []byte) {
	if c != nil {
		c.Write(p)
		c.left -= int64(len(p))
	}
}

// errCut says that a body that was to be verified ended early. Its client hears from tusd what cut it off.
var errCut = errors.New("body ended before it could be verified")

// verify decides, at the body's end.
func (c *check) verify() error {
	switch {
	case c == nil:
		return nil
	case c.known && c.left > 0:
		return errCut
	case !bytes.Equal(c.Sum(nil), c.want):
		return ErrChecksum
	}
	close(c.verified)
	return nil
}

// wait returns once the body is verified.
func (c *check) wait(ctx context.Context) error {
	if c == nil {
		return nil
	}
	select {
	case <-c.verified:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
