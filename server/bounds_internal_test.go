package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/test/stack"
)

// newBare makes a server with middleware and without parts.
func newBare(t *testing.T, change func(*Server)) *Server {
	t.Helper()
	s := &Server{Config: DefaultConfig(), echo: echo.New()}
	s.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s.Metrics = NewMetrics(prometheus.NewRegistry())
	if change != nil {
		change(s)
	}
	s.echo.HTTPErrorHandler = problem.Handler(s.auth.AuditDenial)
	s.echo.Use(s.setOrigin, s.secure, s.logRequest, s.Metrics.observe, recovered, s.bound)
	return s
}

// A request without a body that takes longer than RequestTimeout is not taken for one whose client has gone. Where a read
// deadline has made net/http believe that, the connection's next request is answered, and ends the connection.
func TestReadDeadlineWithoutReader(t *testing.T) {
	t.Parallel()
	s := newBare(t, func(s *Server) { s.RequestTimeout = 100 * time.Millisecond })
	canceled := make(chan error, 1)
	s.echo.Any("/slow", func(c echo.Context) error {
		_, _ = io.Copy(io.Discard, c.Request().Body)
		if c.Request().Method == http.MethodPost {
			_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now())
		}
		select {
		case <-c.Request().Context().Done():
		case <-time.After(2 * s.RequestTimeout):
		}
		canceled <- c.Request().Context().Err()
		_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Time{})
		return c.NoContent(http.StatusNoContent)
	})
	listening := httptest.NewServer(s.echo)
	defer listening.Close()
	conn, err := net.Dial("tcp", listening.Listener.Addr().String()) //nolint:noctx // it is closed below
	stack.Must(t, err)
	defer conn.Close()
	stack.Must(t, conn.SetReadDeadline(time.Now().Add(stack.Patience)))
	answers := bufio.NewReader(conn)
	for _, c := range []struct {
		request          string
		canceled, closes bool
	}{
		{"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", false, false},
		{"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", true, false},
		{"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", false, true},
	} {
		_, err := io.WriteString(conn, c.request)
		stack.Must(t, err)
		res, err := http.ReadResponse(answers, nil)
		stack.Must(t, err)
		res.Body.Close()
		if got := <-canceled != nil; got != c.canceled || res.Close != c.closes {
			t.Errorf("%.4s canceled: %t, want %t; closes: %t, want %t", c.request, got, c.canceled, res.Close, c.closes)
		}
	}
}

// A body that is too large or too slow has a problem of its own, whatever error the handler returns.
func TestBodiesThatEndEarly(t *testing.T) {
	t.Parallel()
	s := newBare(t, func(s *Server) { s.MaxBody, s.RequestTimeout = 10, 200*time.Millisecond })
	s.echo.POST("/json", func(c echo.Context) error {
		if _, err := io.ReadAll(c.Request().Body); err != nil {
			return problem.BadRequest("The body is no JSON: %v.", err)
		}
		return c.NoContent(http.StatusNoContent)
	})
	listening := httptest.NewServer(s.echo)
	defer listening.Close()
	silent, end := io.Pipe()
	defer end.Close()
	for name, c := range map[string]struct {
		body   io.Reader
		status int
	}{
		"right":               {strings.NewReader("0123456789"), 204},
		"too large, and said": {strings.NewReader("0123456789x"), 413},
		"too large, and not":  {io.MultiReader(strings.NewReader("0123456789x")), 413},
		"too slow":            {silent, 408},
	} {
		res, err := http.Post(listening.URL+"/json", "application/json", c.body) //nolint:noctx // of the test's own
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: %d %s", name, res.StatusCode, b)
		}
	}
}

// A panic is answered like any other error, and its text is only in the log.
func TestPanics(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	s := newBare(t, func(s *Server) { s.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	s.echo.GET("/panic", func(echo.Context) error { panic("secret") })
	s.echo.GET("/error", func(echo.Context) error { return fmt.Errorf("secret: %w", errors.New("too")) })
	for _, path := range []string{"/panic", "/error"} {
		w := httptest.NewRecorder()
		s.echo.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != 500 || !strings.Contains(w.Body.String(), "/problems/internal") || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		line := log.String()
		if strings.Count(line, "\n") != 1 || !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "secret") ||
			!strings.Contains(line, "request_id="+w.Header().Get(headerRequestID)) {
			t.Errorf("%s: the log says %s", path, line)
		}
		log.Reset()
	}
}

func TestValidateOrigins(t *testing.T) {
	t.Parallel()
	for origin, good := range map[string]bool{
		"https://app.example.com": true, "http://localhost:5173": true, "*": true, "https://app.example.com/": false,
		"https://app.example.com/x": false, "app.example.com": false, "https://*.example.com": false, "": false, "null": false,
		"https://App.example.com": false, "https://u@app.example.com": false, "ftp://x": false, "https://a.example?x": false,
	} {
		if err := ValidateOrigins([]string{origin}); (err == nil) != good {
			t.Errorf("%q: %v", origin, err)
		}
	}
}
