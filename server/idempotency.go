package server

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

const maxIdempotencyKey = 255 // bytes

// once reads the Idempotency-Key of a request with that body (draft-ietf-httpapi-idempotency-key-header). The draft has
// it as a string of structured fields, in quotes (RFC 9651, section 3.3.3); most clients leave them out.
func once(r *http.Request, body []byte) (storage.Once, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return storage.Once{}, nil
	}
	key := strings.TrimSpace(values[0])
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	printable := strings.IndexFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) < 0
	if len(values) > 1 || key == "" || len(key) > maxIdempotencyKey || !printable {
		return storage.Once{}, problem.BadRequest("Idempotency-Key must be there once, with 1 to %d printable ASCII characters, such as a UUID.", maxIdempotencyKey)
	}
	h := sha256.New()
	h.Write([]byte(r.Method + " " + r.URL.Path + "\n"))
	h.Write(body)
	return storage.Once{Key: key, Request: h.Sum(nil)}, nil
}
