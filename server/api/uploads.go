package api

import (
	"context"
	"math"
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// GetUpload answers with an upload's state. It takes no lease, so it never disturbs a running PATCH.
func (a *API) GetUpload(c echo.Context) error { return answerID(c, http.StatusOK, a.Reader.Upload) }

// ListUploads answers with a page of uploads, newest first.
func (a *API) ListUploads(c echo.Context) error {
	p, err := parseUploadFilter(c)
	if err != nil {
		return err
	}
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]resource.Upload, error) {
		p.Before, p.Limit = before, limit
		rows, items, err := a.Reader.Uploads(ctx, func(ctx context.Context, tx storage.Tx) ([]storage.Upload, error) {
			return tx.Uploads(ctx, p)
		})
		if err == nil && p.Near != nil {
			for i, u := range rows {
				distance := math.Round(p.Near.Distance(*u.Latitude, *u.Longitude)*10) / 10
				items[i].DistanceM = &distance
			}
		}
		return items, err
	}, func(u resource.Upload) uuid.UUID { return u.ID })
}

func parseUploadFilter(c echo.Context) (p storage.Page, err error) {
	p.Project, p.Batch = c.QueryParam("project"), c.QueryParam("batch")
	if p.Status = storage.Status(c.QueryParam("status")); p.Status != "" && !p.Status.Known() {
		return p, problem.BadRequest("status must be pending, uploading, uploaded, processing, completed, failed, expired, cancelled or concatenated.")
	}
	if p.Near, err = parseNear(c.QueryParam("near")); err != nil {
		return p, err
	}
	if p.Taken, err = parseTaken(c.QueryParam("taken")); err != nil {
		return p, err
	}
	p.Deleted, err = parseDeleted(c)
	return p, err
}

// parseDeleted reads the parameter deleted, which is for managers: for others, deleted uploads do not exist.
func parseDeleted(c echo.Context) (bool, error) {
	v := c.QueryParam("deleted")
	if v == "" {
		return false, nil
	}
	deleted, err := strconv.ParseBool(v)
	if err != nil {
		return false, problem.BadRequest("deleted must be true or false.")
	}
	if deleted {
		_, err = tenant.RequireManager(c.Request().Context())
	}
	return deleted, err
}

// RetryUpload processes a failed upload again and answers with its state.
func (a *API) RetryUpload(c echo.Context) error {
	return a.answerUpload(c, http.StatusOK, a.Batches.RetryUpload)
}

// RestoreUpload restores a deleted upload and answers with its state.
func (a *API) RestoreUpload(c echo.Context) error {
	return a.answerUpload(c, http.StatusOK, a.Erasures.Restore)
}

// answerUpload does something with an upload and answers with its state.
func (a *API) answerUpload(c echo.Context, status int, do func(context.Context, uuid.UUID) error) error {
	return answerID(c, status, func(ctx context.Context, id uuid.UUID) (resource.Upload, error) {
		if err := do(ctx, id); err != nil {
			return resource.Upload{}, err
		}
		return a.Reader.Upload(ctx, id)
	})
}
