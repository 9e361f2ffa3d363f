package server_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tramo/tramo/docs"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/test/stack"
)

// description reads and validates the server's description of its API, with its examples.
func (s *site) description(t *testing.T) *openapi3.T {
	t.Helper()
	a := user{t: t}.do("GET", s.url+"/openapi.yaml", nil).want(t, 200, "")
	a.wantHeader(t, "Content-Type", "application/yaml")
	doc, err := openapi3.NewLoader().LoadFromData(a.body)
	stack.Must(t, err)
	stack.Must(t, doc.Validate(t.Context()))
	return doc
}

// Every route is described, and every described route exists.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	described := make(map[string]bool) // "GET /api/uploads/{}"
	for path, item := range s.description(t).Paths.Map() {
		for method := range item.Operations() {
			described[method+" "+canonicalPath(path)] = true
		}
	}
	wired := make(map[string]bool)
	for _, r := range s.server.Routes() {
		method, path, _ := strings.Cut(r, " ")
		route := method + " " + canonicalPath(path)
		wired[route] = true
		switch {
		case described[route] || strings.HasSuffix(path, "/*"): // the page, and what is not found
		case method == http.MethodHead && described["GET "+canonicalPath(path)]:
			// The HEAD of a GET (RFC 9110, section 9.3.2) needs no words.
		default:
			s.wantNoRoute(t, method, path)
		}
	}
	for route := range described {
		if !wired[route] {
			t.Errorf("%s is described, but there is no such route", route)
		}
	}
}

// wantNoRoute checks that a route that is not described answers 404 or 405.
func (s *site) wantNoRoute(t *testing.T, method, path string) {
	t.Helper()
	u := s.user
	u.t = t
	a := u.do(method, s.url+strings.ReplaceAll(path, ":id", "01a20179-fc7f-7add-abf1-6b5b731f04d1"), nil)
	if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
		t.Errorf("%s %s is not described, and answers %d", method, path, a.status)
	}
}

var pathParameter = regexp.MustCompile(`\{[^}]*\}|:[^/]*`)

// canonicalPath makes paths of echo's and of OpenAPI's comparable.
func canonicalPath(path string) string {
	return strings.TrimSuffix(pathParameter.ReplaceAllString(path, "{}"), "/")
}

// The described types of problems are those that docs/reference/problems.md explains, which are those of the table.
func TestOpenAPIProblemTypes(t *testing.T) {
	t.Parallel()
	var described, explained []string
	for _, v := range newSite(t).description(t).Components.Schemas["Problem"].Value.Properties["type"].Value.Enum {
		described = append(described, v.(string))
	}
	for line := range strings.Lines(string(docs.Problems)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			explained = append(explained, problem.Path+"/"+name)
		}
	}
	slices.Sort(described)
	slices.Sort(explained)
	stack.Want(t, described, explained, "described problem types, which must be those that are explained")
}

// The description as JSON equals the YAML.
func TestOpenAPIAsJSON(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	want, err := json.Marshal(s.description(t))
	stack.Must(t, err)
	a := user{t: t}.do("GET", s.url+"/openapi.json", nil).want(t, 200, "")
	a.wantHeader(t, "Content-Type", "application/json")
	a.wantHeader(t, "Cache-Control", "no-cache")
	doc, err := openapi3.NewLoader().LoadFromData(a.body)
	stack.Must(t, err)
	got, err := json.Marshal(doc)
	stack.Must(t, err)
	stack.Want(t, string(got), string(want), "description as JSON, which must be that as YAML")
	user{t: t}.do("GET", s.url+"/openapi.json", nil, "If-None-Match", a.header.Get("ETag")).want(t, http.StatusNotModified, "")
}
