// Package web owns the uploader page: its sources, built by Vite into dist, and the handler that
// serves what was built. It refuses everything else: it reads no upload and knows no API.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

const (
	// Vite puts a hash of the content into every name under assets/.
	cacheImmutable = "public, max-age=31536000, immutable"
	cacheNever     = "no-cache"

	indexName = "index.html"
	docsName  = "docs.html"
)

// policy is what the page may do: run its own scripts, speak to its own server, be framed by nobody. Where it has
// pictures from stands behind it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; img-src 'self' "

// A Page is what Vite built: index.html at "/", docs.html at "/docs", their assets below. Before it has been built every
// path is 503, with a text that says how to build it.
type Page struct {
	files map[string]file // by path without its leading slash; nil before the page has been built
}

// New reads the built page. It loads pictures from one more origin than its own, such as
// https://bucket.s3.sa-east-1.amazonaws.com.
func New(pictures string) *Page {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // "dist" is a valid path: fs.Sub cannot refuse it
	}
	return newPage(built, pictures)
}

type file struct {
	body         []byte
	contentType  string
	cacheControl string
	etag         string
	policy       string
}

// newPage reads all of built once: it is small, and already in memory.
func newPage(built fs.FS, pictures string) *Page {
	files := make(map[string]file)
	err := fs.WalkDir(built, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(built, name)
		if err != nil {
			return err
		}
		f := newFile(name, body)
		f.policy = policy + pictures
		if name == docsName {
			f.policy = policy + "data:" // where Swagger UI has its icons
		}
		files[name] = f
		if page, ok := strings.CutSuffix(name, ".html"); ok {
			files[page] = f
		}
		return nil
	})
	index, ok := files[indexName]
	if err != nil || !ok {
		return &Page{}
	}
	files[""] = index
	return &Page{files: files}
}

// Has reports whether the page has something at path. Before it has been built, it has 503 everywhere.
func (p *Page) Has(path string) bool {
	_, ok := p.files[strings.TrimPrefix(path, "/")]
	return ok || p.files == nil
}

// ServeHTTP implements [http.Handler] for GET and HEAD. Unknown paths are 404.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := p.files[strings.TrimPrefix(r.URL.Path, "/")]
	switch {
	case p.files == nil:
		notBuilt(w)
	case !ok:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Security-Policy", f.policy)
		f.serve(w, r)
	}
}

func newFile(name string, body []byte) file {
	sum := sha256.Sum256(body)
	f := file{
		body:         body,
		contentType:  mime.TypeByExtension(path.Ext(name)),
		cacheControl: cacheNever,
		etag:         `"` + hex.EncodeToString(sum[:8]) + `"`,
	}
	if f.contentType == "" {
		f.contentType = "application/octet-stream"
	}
	if strings.HasPrefix(name, "assets/") {
		f.cacheControl = cacheImmutable
	}
	return f
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", f.cacheControl)
	h.Set("ETag", f.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}

func notBuilt(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", cacheNever)
	http.Error(w, "the uploader page was not built: run make web", http.StatusServiceUnavailable)
}
