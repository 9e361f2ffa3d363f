package server

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the description of the API
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

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
	images, err := s.Bucket.Origin()
	if err != nil {
		return p, err
	}
	page := web.New(images)
	p.openAPI = serveStatic("application/yaml", openAPI) // RFC 9512
	p.openAPIJSON = serveStatic("application/json", asJSON)
	p.problems = problems.Serve
	p.page = func(c echo.Context) error {
		if !page.Has(c.Request().URL.Path) {
			return problem.ErrNotFound
		}
		page.ServeHTTP(c.Response(), c.Request())
		return nil
	}
	return p, nil
}

// serveStatic answers with content that stays the same as long as the program runs.
func serveStatic(contentType string, content []byte) echo.HandlerFunc {
	sum := sha256.Sum256(content)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", etag)
		http.ServeContent(c.Response(), c.Request(), "", time.Time{}, bytes.NewReader(content))
		return nil
	}
}
