package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// quarantinedJSON is an upload in quarantine. Nothing in it leads to its content.
type quarantinedJSON struct {
	ID         uuid.UUID         `json:"id"`
	Project    string            `json:"project"`
	BatchID    *uuid.UUID        `json:"batch_id"`
	UserID     string            `json:"user_id"`
	Filename   *string           `json:"filename"`
	Size       int64             `json:"size"`
	UploadedAt *time.Time        `json:"uploaded_at"`
	Failure    *resource.Failure `json:"failure"`
	Scan       *storage.Scanned  `json:"scan"`
}

func describeQuarantined(u storage.Upload) quarantinedJSON {
	return quarantinedJSON{
		ID: u.ID, Project: u.Project, BatchID: u.BatchID, UserID: u.UserID, Filename: storage.Shown(u.Filename), Size: u.Size,
		UploadedAt: u.UploadedAt, Failure: resource.FailureOf(u), Scan: resource.ScanOf(u),
	}
}

// ListQuarantine answers admins with a page of the uploads in quarantine, newest first.
func (a *API) ListQuarantine(c echo.Context) error {
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]quarantinedJSON, error) {
		found, err := a.Quarantine.List(ctx, before, limit)
		return each(found, describeQuarantined), err
	}, func(u quarantinedJSON) uuid.UUID { return u.ID })
}

// ReleaseQuarantined processes an upload in quarantine again, and answers with its state.
func (a *API) ReleaseQuarantined(c echo.Context) error {
	var body struct {
		Reason string `json:"reason"`
	}
	if _, err := readJSON(c, &body); err != nil {
		return err
	}
	return a.answerUpload(c, http.StatusAccepted, func(ctx context.Context, id uuid.UUID) error {
		return a.Quarantine.Release(ctx, id, body.Reason)
	})
}

// EraseQuarantined answers with the erasure that removes the upload.
func (a *API) EraseQuarantined(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	e, err := a.Erasures.EraseQuarantined(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return acceptErasure(c, e)
}
