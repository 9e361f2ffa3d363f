package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

// tagsJSON has the metadata tags of an upload's file.
type tagsJSON struct {
	Tags      json.RawMessage `json:"tags"`
	Truncated bool            `json:"truncated"`
}

// GetTags answers with the metadata tags of an upload's file.
func (a *API) GetTags(c echo.Context) error {
	return answerID(c, http.StatusOK, func(ctx context.Context, id uuid.UUID) (tagsJSON, error) {
		t, err := read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) (storage.Tags, error) { return tx.Tags(ctx, id) })
		return tagsJSON(t), err
	})
}
