package server

import (
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

// getTags tells what an upload's file says of itself, as it says it, to whoever may read the upload.
func (s *Server) getTags(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	ctx := c.Request().Context()
	var found storage.Tags
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = tx.Tags(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, struct {
		Tags      json.RawMessage `json:"tags"`
		Truncated bool            `json:"truncated"`
	}{found.Tags, found.Truncated})
}
