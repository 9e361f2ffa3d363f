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
	algorithm string
	sum       []byte
}

// newHash returns the algorithm's hash; nil for one that is not known.
func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case "sha1":
		return sha1.New()
	case "sha256":
		return sha256.New()
	case "crc32":
		return crc32.NewIEEE() // its Sum is big-endian
	}
	return nil
}

// ParseChecksum reads an Upload-Checksum header: the name of an algorithm, a space, and the sum in Base64. Its
// errors wrap [ErrChecksumHeader].
func ParseChecksum(header string) (Checksum, error) {
	name, encoded, _ := strings.Cut(strings.TrimSpace(header), " ")
	h := newHash(name)
	if h == nil {
		return Checksum{}, fmt.Errorf("%w: the algorithm %q is none of %s", ErrChecksumHeader, name, ChecksumAlgorithms)
	}
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Checksum{}, fmt.Errorf("%w: the checksum is not Base64", ErrChecksumHeader)
	}
	if len(sum) != h.Size() {
		return Checksum{}, fmt.Errorf("%w: a %s has %d bytes, not %d", ErrChecksumHeader, name, h.Size(), len(sum))
	}
	return Checksum{algorithm: name, sum: sum}, nil
}

type checkKey struct{}

// WithChecksum makes the store hold back what a request brings until all of it has arrived and has this
// checksum. whole reports whether the body has been read to its end, which tusd does not tell a store.
func WithChecksum(ctx context.Context, c Checksum, whole func() bool) context.Context {
	return withCheck(ctx, whole, func() (Checksum, error) { return c, nil }, c.algorithm)
}

// WithTrailer is [WithChecksum] for a checksum that comes behind the body. told is called after the body's end
// and returns what [ParseChecksum] reads.
func WithTrailer(ctx context.Context, told func() string, whole func() bool) context.Context {
	parse := func() (Checksum, error) { return ParseChecksum(told()) }
	return withCheck(ctx, whole, parse, strings.Split(ChecksumAlgorithms, ",")...)
}

func withCheck(ctx context.Context, whole func() bool, told func() (Checksum, error), algorithms ...string) context.Context {
	c := &check{hashes: map[string]hash.Hash{}, told: told, whole: whole, verified: make(chan struct{})}
	for _, a := range algorithms {
		c.hashes[a] = newHash(a)
	}
	return context.WithValue(ctx, checkKey{}, c)
}

// A check compares a body with its checksum. A nil check finds everything right.
type check struct {
	hashes   map[string]hash.Hash // by algorithm, those that may be asked for
	told     func() (Checksum, error)
	whole    func() bool
	verified chan struct{} // closed when the body is right
}

func checkIn(ctx context.Context) *check {
	c, _ := ctx.Value(checkKey{}).(*check)
	return c
}

func (c *check) write(p []byte) {
	if c == nil {
		return
	}
	for _, h := range c.hashes {
		h.Write(p)
	}
}

// errCut says that a body that was to be verified ended early. Its client hears from tusd what cut it off.
var errCut = errors.New("body ended before it could be verified")

// verify decides, at the body's end.
func (c *check) verify() error {
	if c == nil {
		return nil
	}
	if !c.whole() {
		return errCut
	}
	want, err := c.told()
	if err != nil {
		return err
	}
	if !bytes.Equal(c.hashes[want.algorithm].Sum(nil), want.sum) {
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
