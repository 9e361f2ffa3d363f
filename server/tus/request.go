package tus

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// validate refuses what tusd lets pass: a role that may not write (even its HEAD would interrupt somebody's PATCH), a HEAD
// of another protocol version, numbers that are none, and metadata that it would silently drop or fail at.
func (x *exchange) validate() error {
	r := x.request
	if _, err := hooks.MayUpload(r.Context()); err != nil {
		return err
	}
	if err := checkNumbers(r.Header); err != nil {
		return err
	}
	if err := x.checkLength(); err != nil {
		return err
	}
	if draftVersion(r) != "" {
		return checkDraft(r)
	}
	if v := r.Header.Get("Tus-Resumable"); r.Method == http.MethodHead && v != "" && v != Version {
		return problem.ErrTusVersion
	}
	if r.Method == http.MethodPost {
		if err := checkMetadataHeader(r.Header.Get("Upload-Metadata")); err != nil {
			return err
		}
	}
	if err := x.expectChecksum(); err != nil {
		return err
	}
	return x.resolvePartials()
}

// checkNumbers holds offsets and lengths to what they must be, non-negative integers (tus 1.0.0, Upload-Offset and
// Upload-Length). tusd takes a sign, and the first of two.
func checkNumbers(h http.Header) error {
	for name, err := range map[string]error{
		"Upload-Offset": problem.ErrUploadOffset, "Upload-Length": problem.ErrUploadLength,
	} {
		values := h.Values(name)
		if len(values) > 1 || len(values) == 1 && strings.Trim(values[0], "0123456789") != "" {
			return err
		}
	}
	return nil
}

// checkLength refuses a length above Tus-Max-Size (tus 1.0.0, Creation, Upload-Length: MUST), which tusd does in a creation only,
// and, before there is an upload, a creation whose content is longer than its Upload-Length.
func (x *exchange) checkLength() error {
	r := x.request
	told := r.Header.Get("Upload-Length")
	if told == "" {
		return nil
	}
	length, err := strconv.ParseInt(told, 10, 64)
	brings := draftVersion(r) != "" || r.Header.Get("Content-Type") == contentType
	switch {
	case err != nil || length > x.handler.maxSize: // more digits than 64 bits have
		return hooks.ErrTooLarge
	case r.Method == http.MethodPost && brings && r.ContentLength > length:
		return object.ErrBeyondLength
	}
	return nil
}

// checkMetadataHeader holds the header to tus 1.0.0, Creation, Upload-Metadata: comma-separated pairs of a
// key, which is neither empty nor there twice, and a Base64 value, which may be left out.
func checkMetadataHeader(header string) error {
	if strings.TrimSpace(header) == "" {
		return nil
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(header, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
		switch {
		case key == "":
			return tenant.Refuse(hooks.ErrBadMetadata, "Upload-Metadata has a pair without a key.")
		case seen[key]:
			return tenant.Refuse(hooks.ErrBadMetadata, "Upload-Metadata has the key %q twice.", key)
		}
		seen[key] = true
		if _, err := base64.StdEncoding.DecodeString(value); err != nil {
			return tenant.Refuse(hooks.ErrBadMetadata, "The value of %q in Upload-Metadata is not Base64.", key)
		}
	}
	return nil
}

const checksumHeader = "Upload-Checksum"

// contentType is that of a body with an upload's bytes (tus 1.0.0, PATCH).
const contentType = "application/offset+octet-stream"

// expectChecksum lets the store compare the body with the checksum that the client announces, before the body or behind it
// (tus 1.0.0, Checksum).
func (x *exchange) expectChecksum() error {
	r := x.request
	if r.Method != http.MethodPatch && r.Method != http.MethodPost {
		return nil
	}
	_, trails := r.Trailer[checksumHeader]
	values := r.Header.Values(checksumHeader)
	switch {
	case len(values) > 1 || len(values) == 1 && trails:
		return tenant.Refuse(problem.ErrUploadChecksum, "Send one Upload-Checksum, before the body or behind it.")
	case len(values) == 1:
		sum, err := parseChecksum(values[0])
		if err != nil {
			return err
		}
		x.checksum = object.NewCheck(func() (object.Checksum, error) { return sum, nil }, sum.Algorithm)
	case trails:
		told := func() (object.Checksum, error) { return parseChecksum(r.Trailer.Get(checksumHeader)) }
		x.checksum = object.NewCheck(told, object.ChecksumAlgorithms()...)
	}
	return nil
}

// parseChecksum reads an Upload-Checksum header: the name of an algorithm, a space, and the sum in Base64. Its errors wrap
// [problem.ErrUploadChecksum], or [object.ErrChecksum] for a sum of another length than the algorithm's: no body matches it.
func parseChecksum(header string) (object.Checksum, error) {
	name, encoded, _ := strings.Cut(strings.TrimSpace(header), " ")
	h := object.NewHash(name)
	if h == nil {
		return object.Checksum{}, fmt.Errorf("%w: the algorithm %q is none of %s", problem.ErrUploadChecksum, name, object.ChecksumAlgorithms())
	}
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sum) == 0 {
		return object.Checksum{}, fmt.Errorf("%w: the checksum is not Base64", problem.ErrUploadChecksum)
	}
	if len(sum) != h.Size() {
		return object.Checksum{}, fmt.Errorf("%w: a %s has %d bytes, not %d", object.ErrChecksum, name, h.Size(), len(sum))
	}
	return object.Checksum{Algorithm: name, Sum: sum}, nil
}
