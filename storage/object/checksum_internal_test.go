package object

import (
	"errors"
	"testing"
)

// What is taken can be computed; anything else is refused as what it is.
func FuzzParseChecksum(f *testing.F) {
	for _, s := range []string{"", "sha1", "sha1 ", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "crc32 NhCmhg==", "crc32 NhCmhg", "md5 x", "crc32  NhCmhg==", "sha256 \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, err := ParseChecksum(header)
		if err != nil {
			if !errors.Is(err, ErrChecksumHeader) {
				t.Errorf("%q is refused as %v", header, err)
			}
			return
		}
		if h := newHash(c.algorithm); h == nil || h.Size() != len(c.sum) {
			t.Errorf("%q is taken as %+v", header, c)
		}
	})
}
