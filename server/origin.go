package server

import (
	"net"
	"net/http"
	"regexp"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/tenant"
)

// A request keeps the id that a proxy or its client gave it, so that their logs and ours can be laid side by side.
const headerRequestID = "X-Request-Id"

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// setOrigin notes where the request came from, and answers with its id.
func (s *Server) setOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		o := tenant.Origin{Address: clientAddress(r), RequestID: r.Header.Get(headerRequestID)}
		if !requestID.MatchString(o.RequestID) {
			o.RequestID = uuid.NewString()
		}
		c.Response().Header().Set(headerRequestID, o.RequestID)
		c.SetRequest(r.WithContext(tenant.WithOrigin(r.Context(), o)))
		return next(c)
	}
}

// clientAddress returns the IP address that the request came from.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
