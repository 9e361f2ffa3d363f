package object

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // tus: servers support sha1
	"crypto/sha256"
	"errors"
	"hash"
	"hash/crc32"
)

// ErrChecksum says that a body does not have the checksum that its client announced. None of it was kept.
var ErrChecksum = errors.New("body has another checksum than announced")

// ChecksumAlgorithms returns the names of the algorithms that a client may choose from.
func ChecksumAlgorithms() []string { return []string{"sha1", "sha256", "crc32"} }

// NewHash returns the algorithm's hash; nil for one that is not known.
func NewHash(algorithm string) hash.Hash {
	switch algorithm {
	case "sha1":
		return sha1.New() //nolint:gosec // tus: servers support sha1
	case "sha256":
		return sha256.New()
	case "crc32":
		return crc32.NewIEEE() // its Sum is big-endian
	}
	return nil
}

// A Checksum is what a client says of a body.
type Checksum struct {
	Algorithm string // one of [ChecksumAlgorithms]
	Sum       []byte // as long as the algorithm's
}

// A Check compares a body with its checksum. What the body brings is held back until all of it has arrived and is right.
// A nil Check finds everything right.
type Check struct {
	hashes   map[string]hash.Hash // by algorithm, those that may be asked for
	told     func() (Checksum, error)
	verified chan struct{} // closed when the body is right
}

// NewCheck makes a check by one of these algorithms. told is called after the body's end, behind which the checksum may
// come.
func NewCheck(told func() (Checksum, error), algorithms ...string) *Check {
	c := &Check{hashes: map[string]hash.Hash{}, told: told, verified: make(chan struct{})}
	for _, a := range algorithms {
		c.hashes[a] = NewHash(a)
	}
	return c
}

func (c *Check) write(p []byte) {
	if c == nil {
		return
	}
	for _, h := range c.hashes {
		h.Write(p)
	}
}

// errCut says that a body that was to be verified ended early. Who reads it from the client knows what cut it off.
var errCut = errors.New("body ended before it could be verified")

// verify decides, once the body is read, whether to its end or not.
func (c *Check) verify(ended bool) error {
	if c == nil {
		return nil
	}
	if !ended {
		return errCut
	}
	want, err := c.told()
	if err != nil {
		return err
	}
	if !bytes.Equal(c.hashes[want.Algorithm].Sum(nil), want.Sum) {
		return ErrChecksum
	}
	close(c.verified)
	return nil
}

// wait returns once the body is verified.
func (c *Check) wait(ctx context.Context) error {
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
