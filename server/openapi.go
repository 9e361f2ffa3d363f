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
)

// openAPI describes the whole API (OpenAPI 3.1). It is written by hand; tests hold the routes, the problems and
// every answer against it.
//
//go:embed openapi.yaml
var openAPI []byte

// routeDescription serves the description of the API, as it is written and as JSON. It is no secret.
func (s *Server) routeDescription(e *echo.Echo) error {
	asJSON, err := yaml.YAMLToJSON(openAPI)
	if err != nil {
		return fmt.Errorf("read openapi.yaml: %w", err)
	}
	for path, handle := range map[string]echo.HandlerFunc{
		"/openapi.yaml": serveStatic("application/yaml", openAPI), // RFC 9512
		"/openapi.json": serveStatic("application/json", asJSON),
	} {
		e.Match([]string{http.MethodGet, http.MethodHead}, path, handle)
	}
	return nil
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
