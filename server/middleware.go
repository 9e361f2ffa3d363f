package server

import (
	"fmt"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/tenant"
)

// traced puts each request into the trace that its traceparent names (W3C Trace Context, section 3.2), or into a new one.
func (s *Server) traced(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "request",
		otelhttp.WithTracerProvider(s.Tracers),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithMeterProvider(noop.NewMeterProvider())) // [Metrics] measure already
}

// nameTrace names the request's span and puts the id of its trace into the answer. The header is that of the W3C draft
// "Trace Context HTTP Response Headers Format", in the format of traceparent: version, trace id, span id, flags.
func nameTrace(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		span := trace.SpanFromContext(c.Request().Context())
		span.SetName(knownMethod(c.Request().Method) + " " + c.Path())
		if sc := span.SpanContext(); sc.IsValid() {
			c.Response().Header().Set("traceresponse", fmt.Sprintf("00-%s-%s-%s", sc.TraceID(), sc.SpanID(), sc.TraceFlags()))
		}
		return next(c)
	}
}

// A request keeps the id that a proxy or its client gave it, so that their logs can be compared with ours.
const headerRequestID = echo.HeaderXRequestID

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// setOrigin keeps where the request came from, as far as its proxies are trusted, and answers with its id.
func (s *Server) setOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		s.TrustedProxies.sanitize(r)
		o := tenant.Origin{Address: c.RealIP(), RequestID: r.Header.Get(headerRequestID)}
		if !requestID.MatchString(o.RequestID) {
			o.RequestID = uuid.NewString()
		}
		c.Response().Header().Set(headerRequestID, o.RequestID)
		c.SetRequest(r.WithContext(tenant.WithOrigin(r.Context(), o)))
		return next(c)
	}
}

// secure sets the security headers of all answers. Handlers of pages replace those that their page needs otherwise.
func (s *Server) secure(next echo.HandlerFunc) echo.HandlerFunc {
	https := strings.HasPrefix(s.PublicURL, "https://")
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // URLs contain ids
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		if https {
			// Without includeSubDomains: other hosts of the domain are not ours to decide on.
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		return next(c)
	}
}

// recovered turns a panic into an error, so that its request is answered, counted and logged like any other.
func recovered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler: // net/http compares it with ==
				panic(p)
			default:
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		return next(c)
	}
}
