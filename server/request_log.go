package server

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/tenant"
)

// logRequest logs each request when it has ended: as Error if it failed here, as Info if it may change something, as Debug
// if it only reads. It logs the ids of the token, and nothing that the client sent: no URL, whose query may contain
// anything, no header, no file name.
func (s *Server) logRequest(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		body := &countedBody{ReadCloser: c.Request().Body}
		c.Request().Body = body
		err := next(c)
		r, w := c.Request(), c.Response() // by now the context has the identity
		attrs := []slog.Attr{
			slog.String("method", knownMethod(r.Method)),
			slog.String("route", c.Path()),
			slog.Int("status", w.Status),
			slog.Int64("duration_ms", time.Since(start).Milliseconds()),
			slog.Int64("bytes_in", body.read),
			slog.Int64("bytes_out", w.Size),
		}
		from := tenant.OriginOf(r.Context())
		attrs = append(attrs, slog.String("request_id", from.RequestID), slog.String("client_address", from.Address))
		if who, err := tenant.From(r.Context()); err == nil {
			attrs = append(attrs, slog.String("tenant_id", who.Tenant.String()), slog.String("user_id", who.User))
		}
		if cause := problem.Cause(c); cause != nil {
			attrs = append(attrs, slog.Any("err", cause))
		}
		s.Log.LogAttrs(r.Context(), levelOf(r.Method, w.Status), "request", attrs...)
		return err
	}
}

func levelOf(method string, status int) slog.Level {
	switch {
	case status == http.StatusNotImplemented: // the client asked for something that is not configured
		return slog.LevelInfo
	case status >= http.StatusInternalServerError:
		return slog.LevelError
	case method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

type countedBody struct {
	io.ReadCloser
	read int64 // bytes
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}
