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
)

// Handler serves the built page: index.html at "/", its assets below. Unknown paths are 404. Before
// the page has been built every path is 503, with a text that says how to build it.
//
// It expects paths relative to the page's own root: mount it under a prefix with http.StripPrefix.
func Handler() http.Handler {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // "dist" is a valid path: fs.Sub cannot refuse it
	}
	return newHandler(built)
}

type file struct {
	body         []byte
	contentType  string
	cacheControl string
	etag         string
}

// newHandler reads all of built once: it is small, and already in memory.
func newHandler(built fs.FS) http.Handler {
	files := make(map[string]file)
	err := fs.WalkDir(built, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(built, name)
		if err != nil {
			return err
		}
		files[name] = newFile(name, body)
		return nil
	})
	index, ok := files[indexName]
	if err != nil || !ok {
		return http.HandlerFunc(notBuilt)
	}
	files[""] = index

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		f.serve(w, r)
	})
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

func notBuilt(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", cacheNever)
	http.Error(w, "the uploader page was not built: run make web", http.StatusServiceUnavailable)
}
