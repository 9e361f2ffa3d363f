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

// policy lets the page run its own scripts and connect to its own server, and lets no page frame it. New appends the
// origin of its thumbnails.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; img-src 'self' "

// A Page is what Vite built: index.html at "/", docs.html at "/docs", their assets below. Until it is built, every path
// answers 503 with a text that says how to build it.
type Page struct {
	files map[string]file // by path without its leading slash; nil before the page has been built
}

// New reads the built page. Besides its own origin, it loads thumbnails from another one, such as
// https://bucket.s3.sa-east-1.amazonaws.com.
func New(thumbnails string) *Page {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // "dist" is a valid path: fs.Sub cannot refuse it
	}
	return newPage(built, thumbnails)
}

type file struct {
	body         []byte
	contentType  string
	cacheControl string
	etag         string
	policy       string
}

// newPage reads all of built once: it is small, and already in memory.
func newPage(built fs.FS, thumbnails string) *Page {
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
		f.policy = policy + thumbnails
		if name == docsName {
			f.policy = policy + "data:" // Swagger UI's icons
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

// Has reports whether the page has a file at path. Until it is built, every path has 503.
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
