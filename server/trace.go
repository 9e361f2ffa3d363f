package server

import (
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traced puts each request into the trace that its traceparent names (W3C Trace Context, section 3.2), or
// into one of its own.
func (s *Server) traced(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "request",
		otelhttp.WithTracerProvider(s.Tracers),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithMeterProvider(noop.NewMeterProvider())) // [Metrics] measure already
}

// nameTrace names the request's span, and tells the client, on every answer, where its trace can be asked
// for. The header is the W3C's draft for the way back ("Trace Context HTTP Response Headers Format",
// traceresponse), formed as traceparent is: version, trace id, span id, flags.
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
