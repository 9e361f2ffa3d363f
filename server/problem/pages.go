package problem

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"

	"github.com/tramo/tramo/docs"
)

const pageStyle = `
:root { color-scheme: light dark; font: 1rem/1.55 system-ui, sans-serif }
body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere }
table { border-collapse: collapse } th, td { border: 1px solid #8886; padding: .25rem .6rem; text-align: left }
`

// pagePolicy lets the page have its own style and nothing else.
var pagePolicy = "default-src 'none'; style-src 'sha256-" + hashOf(pageStyle) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

var pageTemplate = template.Must(template.New("problem").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} · Tramo</title>
<style>{{.Style}}</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{.Text}}
{{with .Names}}<ul>{{range .}}<li><a href="{{.}}"><code>{{.}}</code></a></li>
{{end}}</ul>{{else}}<p><a href="../problems/">All problems</a></p>{{end}}
</body>
</html>
`))

// Pages are the pages that explain problems, by name; the one that lists them all is under "".
type Pages map[string][]byte

var (
	section = regexp.MustCompile(`(?m)^## (.+)$`)
	// The server does not show what such links lead to.
	localLink = regexp.MustCompile(`\[([^\]]+)\]\([^):]*\.md[^)]*\)`)
	// Markdown takes "404. There" for the 404th item of a list.
	status = regexp.MustCompile(`(?m)^(\d{3})\. `)
)

// NewPages makes a page of each section of docs/reference/problems.md.
func NewPages() (Pages, error) {
	text := localLink.ReplaceAllString(string(docs.Problems), "$1")
	text = status.ReplaceAllString(text, "**$1.** ")
	pages := Pages{}
	var names []string
	found := section.FindAllStringSubmatchIndex(text, -1)
	for i, at := range found {
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		name := text[at[2]:at[3]]
		names = append(names, name)
		if err := pages.add(name, name, text[at[1]:end], nil); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("docs/reference/problems.md has no section")
	}
	_, intro, _ := strings.Cut(text[:found[0][0]], "\n") // behind its own title
	return pages, pages.add("", "Problems", intro, names)
}

func (p Pages) add(name, title, text string, names []string) error {
	var body, page bytes.Buffer
	if err := goldmark.New(goldmark.WithExtensions(extension.Table)).Convert([]byte(text), &body); err != nil {
		return fmt.Errorf("render problem %q: %w", name, err)
	}
	err := pageTemplate.Execute(&page, struct {
		Title string
		Style template.CSS
		Text  template.HTML
		Names []string
	}{title, pageStyle, template.HTML(body.String()), names}) //nolint:gosec // our own text
	if err != nil {
		return fmt.Errorf("render problem %q: %w", name, err)
	}
	p[name] = page.Bytes()
	return nil
}

// Serve answers the routes [Path], Path/ and Path/:name, also without a token: who has none may need it most.
func (p Pages) Serve(c echo.Context) error {
	page, ok := p[c.Param("name")]
	if !ok {
		return ErrNotFound
	}
	if c.Path() == Path {
		return c.Redirect(http.StatusMovedPermanently, Path+"/") // the list's links are relative to that
	}
	h := c.Response().Header()
	h.Set("Cache-Control", "public, max-age=3600")
	h.Set("Content-Security-Policy", pagePolicy)
	return c.HTMLBlob(http.StatusOK, page)
}
