package server

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
)

// The receipt's payload is a JWT Claims Set, so its media type is that of a JWT (RFC 7519, section 10.3.1)
// rather than that of any JWS, application/jose.
const (
	receiptType = "application/jwt"
	keySetType  = "application/jwk-set+json" // RFC 7517, section 8.5.2
)

// getReceipt tells the sender of a complete upload, signed, that the original may go.
func (s *Server) getReceipt(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	receipt, err := s.Receipts.Issue(c.Request().Context(), id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Blob(http.StatusOK, receiptType, []byte(receipt))
}

// getReceiptKeys tells everyone which keys verify receipts.
func (s *Server) getReceiptKeys(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "public, max-age=300")
	return c.Blob(http.StatusOK, keySetType, s.Receipts.PublicKeys())
}
