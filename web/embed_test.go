package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
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

func TestHandlerServesTheBuiltPage(t *testing.T) {
	t.Parallel()
	h := newPage(builtPage(), "https://thumbnails.example")

	tests := []struct {
		method, path string
		status       int
		contentType  string
		cacheControl string
	}{
		{"GET", "/", 200, "text/html", "no-cache"},
		{"GET", "", 200, "text/html", "no-cache"}, // mounted with http.StripPrefix
		{"HEAD", "/", 200, "text/html", "no-cache"},
		{"GET", "/index.html", 200, "text/html", "no-cache"},
		{"GET", "/docs", 200, "text/html", "no-cache"},
		{"GET", "/icon.svg", 200, "image/svg+xml", "no-cache"},
		{"GET", "/assets/index-ab12.js", 200, "text/javascript", "public, max-age=31536000, immutable"},
		{"GET", "/assets/index-cd34.css", 200, "text/css", "public, max-age=31536000, immutable"},
		{"GET", "/assets/index-old.js", 404, "text/plain", ""},
		{"GET", "/assets/", 404, "text/plain", ""},
		{"GET", "/assets", 404, "text/plain", ""},
		{"GET", "/.gitkeep", 404, "text/plain", ""},
		{"GET", "/some/route", 404, "text/plain", ""},
		{"GET", "/../embed.go", 404, "text/plain", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, "/", nil)
			r.URL.Path = tt.path
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)

			if w.Code != tt.status {
				t.Errorf("status = %d, want %d", w.Code, tt.status)
			}
			if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, tt.contentType) {
				t.Errorf("Content-Type = %q, want %q", got, tt.contentType)
			}
			if got := w.Header().Get("Cache-Control"); got != tt.cacheControl {
				t.Errorf("Cache-Control = %q, want %q", got, tt.cacheControl)
			}
		})
	}
}

func TestHandlerRevalidatesTheIndex(t *testing.T) {
	t.Parallel()
	h := newPage(builtPage(), "https://thumbnails.example")

	first := httptest.NewRecorder()
	h.ServeHTTP(first, httptest.NewRequest(http.MethodGet, "/", nil))
	again := httptest.NewRequest(http.MethodGet, "/", nil)
	again.Header.Set("If-None-Match", first.Header().Get("ETag"))
	second := httptest.NewRecorder()
	h.ServeHTTP(second, again)

	if second.Code != http.StatusNotModified {
		t.Errorf("status = %d, want 304", second.Code)
	}
}

func TestHandlerSaysHowToBuildThePage(t *testing.T) {
	t.Parallel()
	h := newPage(fstest.MapFS{".gitkeep": {}}, "")

	for _, path := range []string{"/", "/assets/index-ab12.js"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "run make web") {
			t.Errorf("GET %s = %d %q, want 503 and how to build", path, w.Code, w.Body)
		}
	}
}

// The embedded folder is whatever this checkout holds: built or not, New must answer.
func TestHandlerOfThisCheckout(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	New("").ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK && w.Code != http.StatusServiceUnavailable {
		t.Errorf("GET / = %d, want 200 or 503", w.Code)
	}
}

// Each file of the page has a policy: it may run its own scripts, connect to its own server, load thumbnails from one
// origin, and is framed by nobody.
func TestPagePolicy(t *testing.T) {
	t.Parallel()
	p := newPage(builtPage(), "https://thumbnails.example")
	for _, path := range []string{"/", "/assets/index-ab12.js", "/icon.svg"} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "img-src 'self' https://thumbnails.example", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q does not say %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/docs", nil))
	if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "script-src 'self';") || !strings.HasSuffix(policy, "img-src 'self' data:") {
		t.Errorf("/docs: policy %q", policy)
	}
	if !p.Has("/") || !p.Has("/docs") || !p.Has("/icon.svg") || p.Has("/assets/") || p.Has("/.gitkeep") || !newPage(fstest.MapFS{}, "").Has("/any") {
		t.Error("the page does not know what it has")
	}
}
