package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// overrideMethod returns the request under the method that a client means which cannot send all of them
// (tus 1.0.0, X-HTTP-Method-Override). It is a copy: to the connection the request is still what was sent.
func overrideMethod(r *http.Request) *http.Request {
	m := r.Header.Get("X-HTTP-Method-Override")
	if m == "" || !strings.HasPrefix(r.URL.Path, UploadsPath) {
		return r
	}
	r = r.WithContext(r.Context())
	r.Method = m
	return r
}

// checkTusRequest refuses what tusd lets pass: a role that may not write (even its HEAD would interrupt
// somebody's PATCH), a HEAD of another protocol version, numbers that are none, and metadata that it would
// silently drop or fail at. The context that it returns has the checksum that the body is to be compared with.
func checkTusRequest(r *http.Request) (context.Context, error) {
	who, err := tenant.From(r.Context())
	if err != nil {
		return nil, err
	}
	if !who.Role.CanUpload() {
		return nil, hooks.ErrForbidden
	}
	if err := checkNumbers(r.Header); err != nil {
		return nil, err
	}
	if draftVersion(r) != "" {
		return r.Context(), checkDraft(r)
	}
	if v := r.Header.Get("Tus-Resumable"); r.Method == http.MethodHead && v != "" && v != tusVersion {
		return nil, handler.ErrUnsupportedVersion
	}
	if r.Method == http.MethodPost {
		if err := checkMetadataHeader(r.Header.Get("Upload-Metadata")); err != nil {
			return nil, err
		}
	}
	return withChecksum(r)
}

// checkNumbers holds offsets and lengths to what they must be, non-negative integers (tus 1.0.0, Upload-Offset and
// Upload-Length). tusd takes a sign, and the first of two.
func checkNumbers(h http.Header) error {
	for name, err := range map[string]error{
		"Upload-Offset": handler.ErrInvalidOffset, "Upload-Length": handler.ErrInvalidUploadLength,
	} {
		values := h.Values(name)
		if len(values) > 1 || len(values) == 1 && strings.Trim(values[0], "0123456789") != "" {
			return err
		}
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
			return refuseMetadata("Upload-Metadata has a pair without a key.")
		case seen[key]:
			return refuseMetadata(fmt.Sprintf("Upload-Metadata has the key %q twice.", key))
		}
		seen[key] = true
		if _, err := base64.StdEncoding.DecodeString(value); err != nil {
			return refuseMetadata(fmt.Sprintf("The value of %q in Upload-Metadata is not Base64.", key))
		}
	}
	return nil
}

func refuseMetadata(detail string) error {
	return &hooks.Refusal{Cause: hooks.ErrBadMetadata, Detail: detail}
}

const checksumHeader = "Upload-Checksum"

// withChecksum lets the store compare the body with the checksum that the client announces, before the body or
// behind it (tus 1.0.0, Checksum).
func withChecksum(r *http.Request) (context.Context, error) {
	ctx := r.Context()
	if r.Method != http.MethodPatch && r.Method != http.MethodPost {
		return ctx, nil
	}
	_, trails := r.Trailer[checksumHeader]
	values := r.Header.Values(checksumHeader)
	switch {
	case len(values) > 1 || len(values) == 1 && trails:
		return nil, &hooks.Refusal{
			Cause: object.ErrChecksumHeader, Detail: "Send one Upload-Checksum, before the body or behind it.",
		}
	case len(values) == 1:
		sum, err := object.ParseChecksum(values[0])
		if err != nil {
			return nil, err
		}
		return object.WithChecksum(ctx, sum, watchEnd(r)), nil
	case trails:
		return object.WithTrailer(ctx, func() string { return r.Trailer.Get(checksumHeader) }, watchEnd(r)), nil
	}
	return ctx, nil
}

// watchEnd returns a function that reports whether the body has been read to its end.
func watchEnd(r *http.Request) func() bool {
	b := &watchedBody{ReadCloser: r.Body}
	r.Body = b
	return func() bool { return b.ended }
}

type watchedBody struct {
	io.ReadCloser
	ended bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended = true
	}
	return n, err
}
