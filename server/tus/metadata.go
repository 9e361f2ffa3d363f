package tus

import (
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/tenant"
)

const metadataHeader = "Upload-Metadata"

// joinMetadata makes one line of the header, which is a list and may have several (RFC 9110, section 5.3), and checks it.
func joinMetadata(h http.Header) error {
	lines := slices.DeleteFunc(slices.Clone(h.Values(metadataHeader)), func(line string) bool { return strings.TrimSpace(line) == "" })
	if len(lines) > 0 {
		h.Set(metadataHeader, strings.Join(lines, ","))
	}
	return checkMetadataHeader(h.Get(metadataHeader))
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

// formatMetadata writes metadata that came in no header as one, as tus 1.0.0 has it. Keys that a header cannot have, as fields of
// forms may be named, are left out.
func formatMetadata(metadata map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		switch value := metadata[key]; {
		case key == "", strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }):
		case value == "":
			pairs = append(pairs, key)
		default:
			pairs = append(pairs, key+" "+base64.StdEncoding.EncodeToString([]byte(value)))
		}
	}
	return strings.Join(pairs, ",")
}
