// Package web owns the uploader page: its sources, built by Vite into dist, and the handler that
// serves what was built. It refuses everything else: it reads no upload and knows no API.
package web

import (
	"bytes"
	"cmp"
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

// A Page is what Vite built, by path without its leading slash: index.html at "", docs.html at "docs", their assets below. It
// is nil until it is built.
type Page map[string]*File

// New reads the built page. It loads thumbnails from its own origin, which may redirect to another one, such as
// https://bucket.s3.sa-east-1.amazonaws.com; "" for none.
func New(thumbnails string) Page {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // "dist" is a valid path: fs.Sub cannot refuse it
	}
	return newPage(built, thumbnails)
}

// newPage reads all of built once: it is small, and already in memory.
func newPage(built fs.FS, thumbnails string) Page {
	p := Page{}
	err := fs.WalkDir(built, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(built, name)
		if err != nil {
			return err
		}
		f := NewFile(cmp.Or(mime.TypeByExtension(path.Ext(name)), "application/octet-stream"), body)
		if strings.HasPrefix(name, "assets/") {
			f.cacheControl = cacheImmutable
		}
		f.policy = policy + thumbnails
		if name == docsName {
			f.policy = policy + "data:" // Swagger UI's icons
		}
		p[name] = f
		if page, ok := strings.CutSuffix(name, ".html"); ok {
			p[page] = f
		}
		return nil
	})
	if p[""] = p[indexName]; err != nil || p[""] == nil {
		return nil
	}
	return p
}

// Find returns what answers GET and HEAD at path, or nil. Until the page is built, every path answers 503 with a text that
// says how to build it.
func (p Page) Find(path string) http.Handler {
	if p == nil {
		return http.HandlerFunc(notBuilt)
	}
	if f, ok := p[strings.TrimPrefix(path, "/")]; ok {
		return f
	}
	return nil
}

func notBuilt(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", cacheNever)
	http.Error(w, "the uploader page was not built: run make web", http.StatusServiceUnavailable)
}

// A File stays the same as long as the program runs.
type File struct {
	body         []byte
	contentType  string
	cacheControl string
	etag         string
	policy       string
}

// NewFile makes a file that clients revalidate before each use.
func NewFile(contentType string, body []byte) *File {
	sum := sha256.Sum256(body)
	return &File{body: body, contentType: contentType, cacheControl: cacheNever, etag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// ServeHTTP implements [http.Handler].
func (f *File) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", f.cacheControl)
	h.Set("ETag", f.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if f.policy != "" {
		h.Set("Content-Security-Policy", f.policy)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}
