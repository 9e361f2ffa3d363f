package server

import (
	_ "embed" // the description of the API
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/web"
)

// openAPI describes the whole API (OpenAPI 3.1). It is written by hand; tests compare it with the routes, the problems
// and every answer.
//
//go:embed openapi.yaml
var openAPI []byte

// pages are the handlers of what a person opens in a browser.
type pages struct{ page, problems, openAPI, openAPIJSON echo.HandlerFunc }

func (s *Server) pages() (p pages, err error) {
	asJSON, err := yaml.YAMLToJSON(openAPI)
	if err != nil {
		return p, fmt.Errorf("read openapi.yaml: %w", err)
	}
	problems, err := problem.NewPages()
	if err != nil {
		return p, err
	}
	thumbnails := "" // where the page's thumbnails are, besides on this server
	if !s.ServeContent {
		if thumbnails, err = s.Bucket.Origin(); err != nil {
			return p, err
		}
	}
	page := web.New(thumbnails)
	p.openAPI = echo.WrapHandler(web.NewFile("application/yaml", openAPI)) // RFC 9512
	p.openAPIJSON = echo.WrapHandler(web.NewFile("application/json", asJSON))
	p.problems = problems.Serve
	p.page = func(c echo.Context) error {
		found := page.Find(c.Request().URL.Path)
		if found == nil {
			return problem.ErrNotFound
		}
		found.ServeHTTP(c.Response(), c.Request())
		return nil
	}
	return p, nil
}
