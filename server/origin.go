package server

import (
	"regexp"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/tenant"
)

// A request keeps the id that a proxy or its client gave it, so that their logs and ours can be laid side by side.
const headerRequestID = "X-Request-Id"

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// setOrigin notes where the request came from, as far as that can be believed, and answers with its id.
func (s *Server) setOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		s.TrustedProxies.sift(r)
		o := tenant.Origin{Address: c.RealIP(), RequestID: r.Header.Get(headerRequestID)}
		if !requestID.MatchString(o.RequestID) {
			o.RequestID = uuid.NewString()
		}
		c.Response().Header().Set(headerRequestID, o.RequestID)
		c.SetRequest(r.WithContext(tenant.WithOrigin(r.Context(), o)))
		return next(c)
	}
}
