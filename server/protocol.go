package server

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/api"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/server/tus"
)

// UploadsPath is where uploads live.
const UploadsPath = resource.UploadsPath

// nameUploadProtocol sets the headers that the client's protocol requires in every answer, refusals included
// ([tus.NameProtocol]). Forms require none.
func nameUploadProtocol(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !writesUploads(c) {
			return next(c)
		}
		h := c.Response().Header()
		h.Set("Cache-Control", "no-store") // tus 1.0.0, HEAD: MUST
		if !isForm(c.Request()) {
			tus.NameProtocol(h, c.Request())
		}
		return next(c)
	}
}

// isForm reports whether the request is a form (RFC 7578), of a client without a resumable protocol.
func isForm(r *http.Request) bool {
	if r.Method != http.MethodPost || r.Header.Get("Tus-Resumable") != "" || r.Header.Get(tus.DraftHeader) != "" {
		return false
	}
	_, ok := api.Boundary(r)
	return ok
}

// formOr passes forms to form, and all other requests to tus.
func formOr(form, tus echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if isForm(c.Request()) {
			return form(c)
		}
		return tus(c)
	}
}

// writesUploads reports whether the request's route is one of the upload protocols'.
func writesUploads(c echo.Context) bool {
	switch c.Request().Method {
	case http.MethodPost, http.MethodHead, http.MethodPatch, http.MethodDelete:
		path := c.Path()
		return path == UploadsPath || path == UploadsPath+"/" || path == UploadsPath+"/:id"
	}
	return false
}

// baseOf returns the scheme and host of the addresses in the answer to a request.
func (s *Server) baseOf(r *http.Request) string { return s.baseAt(r.Header, r.Host) }

// baseAt trusts forwarding headers: [Proxies.sanitize] has removed those of others.
func (s *Server) baseAt(h http.Header, host string) string {
	if s.PublicURL != "" {
		return strings.TrimSuffix(s.PublicURL, "/")
	}
	scheme := cmp.Or(h.Get("X-Forwarded-Proto"), "http")
	host = cmp.Or(h.Get("X-Forwarded-Host"), host)
	return scheme + "://" + strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
}
