package api

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// The receipt's payload is a JWT Claims Set, so its media type is that of a JWT (RFC 7519, section 10.3.1)
// rather than that of any JWS, application/jose.
const (
	receiptType = "application/jwt"
	keySetType  = "application/jwk-set+json" // RFC 7517, section 8.5.2
)

// GetReceipt answers with the receipt of an upload: a signed statement that the original may be deleted.
func (a *API) GetReceipt(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	receipt, err := a.Receipts.Issue(c.Request().Context(), id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Blob(http.StatusOK, receiptType, []byte(receipt))
}

// GetReceiptKeys answers everyone with the keys that verify receipts.
func (a *API) GetReceiptKeys(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "public, max-age=300")
	return c.Blob(http.StatusOK, keySetType, a.Receipts.PublicKeys())
}
