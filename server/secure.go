package server

import (
	"strings"

	"github.com/labstack/echo/v4"
)

// secure tells browsers what they may do with any answer: next to nothing. What serves pages says what those need in
// place of it.
func (s *Server) secure(next echo.HandlerFunc) echo.HandlerFunc {
	https := strings.HasPrefix(s.PublicURL, "https://")
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // addresses have ids in them
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		if https {
			// Of this host only: what else there is below it is not ours to decide on.
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		return next(c)
	}
}
