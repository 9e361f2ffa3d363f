package server

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/exp/slog"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage/object"
)

// UploadsPath is [resource.UploadsPath].
const UploadsPath = resource.UploadsPath

const tusVersion = "1.0.0"

// newTus mounts tusd over the store. tusd speaks the protocols; what it gets wrong, or says in its own
// words, is put right around it.
func (s *Server) newTus() (serve, options echo.HandlerFunc, err error) {
	composer := handler.NewStoreComposer()
	store := notingStore{s.Store, s}
	composer.UseCore(store)
	composer.UseTerminater(store)
	composer.UseLengthDeferrer(store)
	composer.UseConcater(store)
	composer.UseLocker(notingLocker{s.Locker})
	tusd, err := handler.NewUnroutedHandler(handler.Config{
		StoreComposer:              composer,
		BasePath:                   s.base(),
		MaxSize:                    s.Admission.Policy.MaxSize,
		DisableDownload:            true,
		EnableExperimentalProtocol: true, // the IETF draft
		Cors:                       &handler.CorsConfig{Disable: true},
		Logger:                     slog.New(slog.NewTextHandler(io.Discard, nil)), // tusd logs file names and paths
		PreUploadCreateCallback:    s.admit,
		NetworkTimeout:             s.NetworkTimeout,
		AcquireLockTimeout:         s.LockTimeout,
		RespectForwardedHeaders:    true, // as far as Proxies lets them through
	})
	if err != nil {
		return nil, nil, fmt.Errorf("set up tus: %w", err)
	}
	inner := http.StripPrefix(UploadsPath, tusd.Middleware(tusMethods(tusd)))
	return s.serveTus(inner), s.tusOptions(tusd.SupportedExtensions()), nil
}

// serveTus gives tusd the connection's own writer: echo.Response takes an interim 104 for the final status.
func (s *Server) serveTus(tusd http.Handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		w := &tusWriter{
			ResponseWriter: c.Response().Writer, request: r, most: s.Admission.Policy.MaxSize,
			told: func(p problem.Problem) { s.auth.AuditDenial(c, p) },
		}
		ctx, err := checkTusRequest(r)
		if err == nil {
			err = s.resolvePartials(r)
		}
		if err == nil {
			ctx = context.WithValue(object.WithLeaseSlot(ctx), writerKey{}, w)
			if r.Method == http.MethodDelete {
				ctx = object.ForTermination(ctx)
			}
			r = r.WithContext(ctx)
			r.Body = object.WatchBody(ctx, r.Body)
			tusd.ServeHTTP(w, r)
		}
		if cause := w.finish(err); cause != nil {
			problem.SetCause(c, cause)
		}
		c.Response().Status, c.Response().Size, c.Response().Committed = w.status, w.sent, true
		return nil
	}
}

// tusOptions tells what the server can do (tus 1.0.0, OPTIONS). That is no secret, and a browser that asks before
// it sends a request across origins has no token yet.
func (s *Server) tusOptions(extensions string) echo.HandlerFunc {
	size := strconv.FormatInt(s.Admission.Policy.MaxSize, 10)
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Tus-Resumable", tusVersion)
		h.Set("Tus-Version", tusVersion)
		h.Set("Tus-Extension", extensions+",checksum,checksum-trailer,expiration")
		h.Set("Tus-Checksum-Algorithm", object.ChecksumAlgorithms)
		h.Set("Tus-Max-Size", size)
		h.Set("Upload-Limit", "min-size=1,max-size="+size) // of the IETF draft
		return c.NoContent(http.StatusNoContent)
	}
}

// tusMethods routes by method.
func tusMethods(tusd *handler.UnroutedHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		collection := strings.Trim(r.URL.Path, "/") == ""
		switch {
		case r.Method == http.MethodPost && collection:
			tusd.PostFile(w, r)
		case r.Method == http.MethodHead && !collection:
			tusd.HeadFile(w, r)
		case r.Method == http.MethodPatch && !collection:
			tusd.PatchFile(w, r)
		case r.Method == http.MethodDelete && !collection:
			tusd.DelFile(w, r)
		default:
			w.Header().Set("Allow", "POST, HEAD, PATCH, DELETE, GET, OPTIONS")
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
}

// admit is tusd's pre-create callback.
func (s *Server) admit(e handler.HookEvent) (handler.HTTPResponse, handler.FileInfoChanges, error) {
	if s.Bucket.Unavailable() {
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, note(e.Context, object.ErrUnavailable)
	}
	a, err := s.Admission.Admit(e.Context, hooks.Request{
		Size: e.Upload.Size, SizeDeferred: e.Upload.SizeIsDeferred, Metadata: e.Upload.MetaData,
		Partial: e.Upload.IsPartial, Partials: e.Upload.PartialUploads,
	})
	if err != nil {
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, note(e.Context, err)
	}
	if a.Existing && !e.Upload.IsFinal { // a final upload may have to be finished, which tusd does next
		// An error is tusd's way to answer at once. The client gets the address and the offset of the upload
		// it has; content that it sent along is not read.
		header := handler.HTTPHeader{
			"Location": s.locate(e.HTTPRequest, a.ID.String()),
		}
		if a.Offset != hooks.Untold {
			header["Upload-Offset"] = strconv.FormatInt(a.Offset, 10)
			if e.Upload.SizeIsDeferred || a.Offset < e.Upload.Size {
				header["Upload-Expires"] = httpTime(s.Store.ExpiresAfterNow())
			}
		}
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, handler.Error{
			ErrorCode:    "EXISTING_UPLOAD",
			HTTPResponse: handler.HTTPResponse{StatusCode: http.StatusCreated, Header: header},
		}
	}
	return handler.HTTPResponse{}, handler.FileInfoChanges{ID: a.ID.String()}, nil
}

// base is what the addresses of uploads begin with: a path, where the public URL is not known.
func (s *Server) base() string { return strings.TrimSuffix(s.PublicURL, "/") + UploadsPath + "/" }

// locate returns the address of an upload as tusd forms it.
func (s *Server) locate(r handler.HTTPRequest, id string) string {
	return s.baseAt(r.Header, r.Header.Get("Host")) + UploadsPath + "/" + id
}

// baseOf returns what the addresses begin with that a request is answered with.
func (s *Server) baseOf(r *http.Request) string { return s.baseAt(r.Header, r.Host) }

// baseAt believes what is left of forwarding headers: those of trusted proxies.
func (s *Server) baseAt(h http.Header, host string) string {
	if s.PublicURL != "" {
		return strings.TrimSuffix(s.PublicURL, "/")
	}
	scheme := cmp.Or(h.Get("X-Forwarded-Proto"), "http")
	host = cmp.Or(h.Get("X-Forwarded-Host"), host)
	return scheme + "://" + strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
}
