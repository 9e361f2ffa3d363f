package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rs/cors"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/tus"
)

// exposedHeaders are the response headers that a page of another origin may read.
var exposedHeaders = []string{
	"Location", "Content-Disposition", "Content-Range", "Allow", "Retry-After", "ETag", "WWW-Authenticate",
	"Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat", "Upload-Expires",
	"Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm",
	"Upload-Complete", "Upload-Incomplete", "Upload-Limit", tus.DraftHeader,
	"RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
	"Idempotency-Key", "Idempotency-Replayed", headerRequestID, "traceresponse",
}

const preflightMaxAge = 7200 // seconds; Chromium keeps none for longer

// ValidateOrigins reports what is wrong with a list of origins whose pages may use the API.
func ValidateOrigins(origins []string) error {
	for _, o := range origins {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != o ||
			strings.ContainsAny(o, "*@") || strings.ToLower(o) != o {
			return fmt.Errorf("TRAMO_CORS_ORIGINS: %q is not an origin such as https://app.example.com, nor *", o)
		}
	}
	return nil
}

// crossOrigin lets pages of the configured origins use the API (Fetch Standard, "HTTP-CORS protocol"). It wraps everything
// that can answer, so that such a page can read every answer, errors included. A page adds its token as a header itself,
// and there are no cookies, so that an origin gains no rights by being allowed.
func (s *Server) crossOrigin(next http.Handler) http.Handler {
	if len(s.CORSOrigins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins:       s.CORSOrigins,
		AllowedMethods:       []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"},
		AllowedHeaders:       []string{"*"},
		ExposedHeaders:       exposedHeaders,
		MaxAge:               preflightMaxAge,
		OptionsSuccessStatus: http.StatusNoContent,
	}).Handler(next)
}

// checkOrigin refuses a request from a page whose origin may not use the API. Browsers open WebSockets for every page,
// whatever CORS says (RFC 6455, section 10.2). Other clients send no Origin.
func (s *Server) checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(s.CORSOrigins, "*") || slices.Contains(s.CORSOrigins, origin) {
		return nil
	}
	u, err := url.Parse(origin)
	if err == nil && (strings.EqualFold(u.Host, r.Host) || origin == strings.TrimRight(s.PublicURL, "/")) {
		return nil
	}
	return problem.ErrForeignOrigin
}
