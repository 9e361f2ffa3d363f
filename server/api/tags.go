package api

import (
	"context"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

// GetTags answers with the metadata tags of an upload's file.
func (a *API) GetTags(c echo.Context) error {
	return answerID(c, http.StatusOK, func(ctx context.Context, id uuid.UUID) (storage.Tags, error) {
		return read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) (storage.Tags, error) { return tx.Tags(ctx, id) })
	})
}
