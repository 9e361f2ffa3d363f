package server

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/web"
)

// routePages serves what a person opens in a browser: the uploader page at the root, the description of the API, and
// what problems mean.
func (s *Server) routePages() error {
	problems, err := problem.NewPages()
	if err != nil {
		return err
	}
	problems.Route(s.echo)
	pictures, err := s.Bucket.Origin()
	if err != nil {
		return err
	}
	page := web.New(pictures)
	for _, path := range []string{"/docs", "/*"} {
		s.echo.Match([]string{http.MethodGet, http.MethodHead}, path, func(c echo.Context) error {
			if !page.Has(c.Request().URL.Path) {
				return problem.ErrNotFound
			}
			page.ServeHTTP(c.Response(), c.Request())
			return nil
		})
	}
	return nil
}

// notRouted tells a method that an address does not have from an address that there is not.
func notRouted(c echo.Context) error {
	var allowed []string
	for _, method := range []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	} {
		found := c.Echo().NewContext(nil, nil)
		c.Echo().Router().Find(method, echo.GetPath(c.Request()), found)
		if !strings.HasSuffix(found.Path(), "/*") {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		return problem.ErrNotFound
	}
	c.Response().Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", ")) // RFC 9110, 15.5.6: MUST
	return problem.ErrMethod
}
