package api

import (
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
)

// GetContent redirects to the content of an upload.
func (a *API) GetContent(c echo.Context) error { return a.redirect(c, 0) }

// GetThumbnail redirects to the thumbnail that was drawn for a box of the size in the path.
func (a *API) GetThumbnail(c echo.Context) error {
	size, err := strconv.Atoi(c.Param("size"))
	if err != nil || size <= 0 {
		return problem.ErrNotFound
	}
	return a.redirect(c, size)
}

// redirect sends a client that may have the content to S3, with a link that works for [object.LinkLife]. S3 answers
// ranges and conditions: a client sends their headers along.
func (a *API) redirect(c echo.Context, thumbnail int) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	content, err := hooks.ReadContent(ctx, a.DB, id, thumbnail)
	if err != nil {
		return err
	}
	name, fallback := "", id.String()
	switch {
	case thumbnail > 0:
		fallback += "-" + strconv.Itoa(thumbnail)
	case content.Upload.Filename != nil:
		name = *content.Upload.Filename
	}
	p := object.Presentation{Method: c.Request().Method}
	p.Type, p.Disposition = present(content.Type, name, fallback)
	link, err := a.Bucket.LinkAs(ctx, content.Keys, content.Key, p)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store") // the link expires
	return c.Redirect(http.StatusFound, link)
}
