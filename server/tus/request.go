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
// of another protocol version, headers that are there twice, numbers that are none, and metadata that it would silently drop
// or fail at.
func (x *exchange) validate() error {
	r := x.request
	if _, err := hooks.MayUpload(r.Context()); err != nil {
		return err
	}
	if err := checkLines(r.Header); err != nil {
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
		if err := joinMetadata(r.Header); err != nil {
			return err
		}
	}
	if err := x.expectChecksum(); err != nil {
		return err
	}
	return x.resolvePartials()
}

// once are the headers of which a request may have one line. tusd reads the first of several, and a proxy before it may have
// read another (RFC 9110, section 5.3).
var once = map[string]error{
	"Upload-Offset": problem.ErrUploadOffset, "Upload-Length": problem.ErrUploadLength, "Upload-Defer-Length": problem.ErrDeferLength,
	"Upload-Concat": problem.ErrUploadConcat, "Upload-Complete": problem.ErrBadRequest, "Upload-Incomplete": problem.ErrBadRequest,
	"Content-Type": problem.ErrBadRequest, "Content-Disposition": problem.ErrBadRequest,
	"Tus-Resumable": problem.ErrBadRequest, DraftHeader: problem.ErrBadRequest, overrideHeader: problem.ErrBadRequest,
}

// checkLines refuses two lines of a header that a request has once, and offsets and lengths that are not what they must be,
// non-negative integers (tus 1.0.0, Upload-Offset and Upload-Length): tusd takes a sign.
func checkLines(h http.Header) error {
	for name, err := range once {
		switch values := h.Values(name); {
		case len(values) > 1:
			return tenant.Refuse(err, "Send %s once.", name)
		case len(values) == 1 && (name == "Upload-Offset" || name == "Upload-Length") && strings.Trim(values[0], "0123456789") != "":
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
	switch {
	case err != nil || length > x.handler.maxSize: // more digits than 64 bits have
		return hooks.ErrTooLarge
	case r.Method == http.MethodPost && x.bringsContent() && r.ContentLength > length:
		return object.ErrBeyondLength
	}
	return nil
}

// bringsContent reports whether tusd takes the body of a creation for content, which it then writes under the upload's lease.
func (x *exchange) bringsContent() bool {
	return draftVersion(x.request) != "" || x.request.Header.Get("Content-Type") == contentType
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
