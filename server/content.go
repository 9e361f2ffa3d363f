package server

import (
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
)

func (s *Server) routeContent(api *echo.Group) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		api.Add(method, "/uploads/:id/content", s.getContent)
		api.Add(method, "/uploads/:id/thumbnails/:size", s.getThumbnail)
	}
}

func (s *Server) getContent(c echo.Context) error { return s.lead(c, 0) }

func (s *Server) getThumbnail(c echo.Context) error {
	size, err := strconv.Atoi(c.Param("size"))
	if err != nil || size <= 0 {
		return problem.ErrNotFound
	}
	return s.lead(c, size)
}

// lead sends a client that may have the content on to S3, with a link that works for [object.LinkLife]. Ranges and
// conditions are S3's matter: a client sends their headers along.
func (s *Server) lead(c echo.Context, thumbnail int) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	ctx := c.Request().Context()
	content, err := hooks.ReadContent(ctx, s.DB, id, thumbnail)
	if err != nil {
		return err
	}
	name, fallback := "", id.String()
	if content.Upload.Filename != nil {
		name = *content.Upload.Filename
	}
	if thumbnail > 0 {
		name, fallback = "", id.String()+"-"+strconv.Itoa(thumbnail)
	}
	p := object.Presentation{Method: c.Request().Method}
	p.Type, p.Disposition = present(content.Type, name, fallback)
	link, err := s.Bucket.LinkAs(ctx, content.Keys, content.Key, p)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store") // what it says may be wrong in a moment
	return c.Redirect(http.StatusFound, link)
}
