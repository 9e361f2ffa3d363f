package tus

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
)

func TestCheckMetadataHeader(t *testing.T) {
	t.Parallel()
	for header, good := range map[string]bool{
		"":                     true,
		"a":                    true,
		"a YQ==":               true,
		"a YQ==,b Yg==":        true,
		"a YQ==, b":            true,
		"a YQ":                 false,
		"a YQ==,":              false,
		",a YQ==":              false,
		"a YQ==,a YQ==":        false,
		"a YQ== YQ==":          false,
		"filename w7Fhbg==, b": true,
	} {
		if err := checkMetadataHeader(header); (err == nil) != good {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// Whatever passes, tusd reads in full: it drops nothing silently.
func FuzzCheckMetadataHeader(f *testing.F) {
	for _, s := range []string{"a YQ==,b", "a YQ==", ", ,", "a  YQ==", "\x00 YQ==", "a YQ==,b Yg==,c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		err := checkMetadataHeader(header)
		if err != nil {
			if !errors.Is(err, hooks.ErrBadMetadata) {
				t.Errorf("%q is refused as %v", header, err)
			}
			return
		}
		read := handler.ParseMetadataHeader(header)
		for pair := range strings.SplitSeq(header, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
			want, _ := base64.StdEncoding.DecodeString(value)
			if got, ok := read[key]; key != "" && (!ok || got != string(want)) {
				t.Errorf("%q: tusd reads %q as %q, %v", header, key, got, ok)
			}
		}
	})
}

// What is taken can be computed; anything else is refused as what it is.
func FuzzParseChecksum(f *testing.F) {
	for _, s := range []string{"", "sha1", "sha1 ", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "crc32 NhCmhg==", "crc32 NhCmhg", "md5 x", "crc32  NhCmhg==", "sha256 \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, err := parseChecksum(header)
		if err != nil {
			if !errors.Is(err, problem.ErrUploadChecksum) && !errors.Is(err, object.ErrChecksum) {
				t.Errorf("%q is refused as %v", header, err)
			}
			return
		}
		if h := object.NewHash(c.Algorithm); h == nil || h.Size() != len(c.Sum) {
			t.Errorf("%q is taken as %+v", header, c)
		}
	})
}
