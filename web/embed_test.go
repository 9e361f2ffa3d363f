package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tramo/tramo/test/stack"
)

func builtPage() fstest.MapFS {
	return fstest.MapFS{
		".gitkeep":              {},
		"index.html":            {Data: []byte("<!doctype html><title>Tramo</title>")},
		"docs.html":             {Data: []byte("<!doctype html><title>API</title>")},
		"icon.svg":              {Data: []byte("<svg/>")},
		"assets/index-ab12.js":  {Data: []byte("export {}")},
		"assets/index-cd34.css": {Data: []byte("body{}")},
	}
}

// get asks the page for a path that it has, or for one before it is built.
func get(t *testing.T, p Page, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	h := p.Find(path)
	if h == nil {
		t.Fatalf("the page does not have %q", path)
	}
	r := httptest.NewRequest(method, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHandlerServesTheBuiltPage(t *testing.T) {
	t.Parallel()
	h := newPage(builtPage(), "https://thumbnails.example")

	tests := []struct {
		method, path string
		contentType  string
		cacheControl string
	}{
		{"GET", "/", "text/html", "no-cache"},
		{"GET", "", "text/html", "no-cache"}, // mounted with http.StripPrefix
		{"HEAD", "/", "text/html", "no-cache"},
		{"GET", "/index.html", "text/html", "no-cache"},
		{"GET", "/docs", "text/html", "no-cache"},
		{"GET", "/icon.svg", "image/svg+xml", "no-cache"},
		{"GET", "/assets/index-ab12.js", "text/javascript", "public, max-age=31536000, immutable"},
		{"GET", "/assets/index-cd34.css", "text/css", "public, max-age=31536000, immutable"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			w := get(t, h, tt.method, tt.path)
			stack.Want(t, w.Code, http.StatusOK, "status")
			if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, tt.contentType) {
				t.Errorf("Content-Type = %q, want %q", got, tt.contentType)
			}
			stack.Want(t, w.Header().Get("Cache-Control"), tt.cacheControl, "Cache-Control")
		})
	}
}

func TestPageHasNothingElse(t *testing.T) {
	t.Parallel()
	h := newPage(builtPage(), "https://thumbnails.example")
	for _, path := range []string{"/assets/index-old.js", "/assets/", "/assets", "/.gitkeep", "/some/route", "/../embed.go"} {
		if h.Find(path) != nil {
			t.Errorf("the page has %s", path)
		}
	}
}

func TestHandlerRevalidatesTheIndex(t *testing.T) {
	t.Parallel()
	h := newPage(builtPage(), "https://thumbnails.example")
	etag := get(t, h, "GET", "/").Header().Get("ETag")
	stack.Want(t, get(t, h, "GET", "/", "If-None-Match", etag).Code, http.StatusNotModified, "status")
}

func TestHandlerSaysHowToBuildThePage(t *testing.T) {
	t.Parallel()
	h := newPage(fstest.MapFS{".gitkeep": {}}, "")
	for _, path := range []string{"/", "/assets/index-ab12.js", "/any"} {
		w := get(t, h, "GET", path)
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "run make web") {
			t.Errorf("GET %s = %d %q, want 503 and how to build", path, w.Code, w.Body)
		}
	}
}

// The embedded folder is whatever this checkout holds: built or not, New must answer.
func TestHandlerOfThisCheckout(t *testing.T) {
	t.Parallel()
	if w := get(t, New(""), "GET", "/"); w.Code != http.StatusOK && w.Code != http.StatusServiceUnavailable {
		t.Errorf("GET / = %d, want 200 or 503", w.Code)
	}
}

// Each file of the page has a policy: it may run its own scripts, connect to its own server, load thumbnails from one
// origin, and is framed by nobody.
func TestPagePolicy(t *testing.T) {
	t.Parallel()
	p := newPage(builtPage(), "https://thumbnails.example")
	for _, path := range []string{"/", "/assets/index-ab12.js", "/icon.svg"} {
		policy := get(t, p, "GET", path).Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "img-src 'self' https://thumbnails.example", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q does not say %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	if policy := get(t, p, "GET", "/docs").Header().Get("Content-Security-Policy"); !strings.Contains(policy, "script-src 'self';") || !strings.HasSuffix(policy, "img-src 'self' data:") {
		t.Errorf("/docs: policy %q", policy)
	}
}
