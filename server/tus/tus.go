// Package tus serves tus 1.0.0 and draft-ietf-httpbis-resumable-upload. tusd speaks both protocols; only this package
// knows it. It gives tusd the life of an upload ([hooks.Uploads]) as a data store and a locker, corrects what tusd gets
// wrong, and turns tusd's errors into those that package problem knows. What becomes of an upload is not decided here.
package tus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/exp/slog"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage/object"
)

// Version is the version of tus that is served.
const Version = "1.0.0"

// ErrStopping is the cause with which a server that stops cancels its requests. tusd knows it by its own name.
var ErrStopping = errors.Join(object.ErrStopping, handler.ErrServerShutdown)

// Config shapes a [Handler].
type Config struct {
	PublicURL      string        // what the addresses of uploads begin with; "" takes that of each request
	NetworkTimeout time.Duration // how long a request body may be silent
	LeaseTimeout   time.Duration // how long a request waits for an upload that another one writes

	// Base returns what an address begins with that a request to host is answered with.
	Base func(h http.Header, host string) string
	// Denied is called with each problem before the client is told.
	Denied func(echo.Context, problem.Problem)
}

// A Handler serves the requests that create, write and end uploads.
type Handler struct {
	Config
	uploads    *hooks.Uploads
	maxSize    int64 // bytes of an upload
	tusd       http.Handler
	extensions string // of tus, that tusd supports
}

// New sets tusd up.
func New(c Config, uploads *hooks.Uploads) (*Handler, error) {
	h := &Handler{Config: c, uploads: uploads, maxSize: uploads.Admission.Policy.MaxSize}
	composer := handler.NewStoreComposer()
	composer.UseCore(store{h})
	composer.UseTerminater(store{h})
	composer.UseLengthDeferrer(store{h})
	composer.UseConcater(store{h})
	composer.UseLocker(locker{h})
	tusd, err := handler.NewUnroutedHandler(handler.Config{
		StoreComposer:              composer,
		BasePath:                   h.base(),
		MaxSize:                    h.maxSize,
		DisableDownload:            true,
		EnableExperimentalProtocol: true, // the IETF draft
		Cors:                       &handler.CorsConfig{Disable: true},
		Logger:                     slog.New(slog.NewTextHandler(io.Discard, nil)), // tusd logs file names and paths
		PreUploadCreateCallback:    h.create,
		NetworkTimeout:             c.NetworkTimeout,
		AcquireLockTimeout:         c.LeaseTimeout,
		RespectForwardedHeaders:    true, // as far as trusted proxies set them
	})
	if err != nil {
		return nil, fmt.Errorf("set up tus: %w", err)
	}
	h.tusd = http.StripPrefix(resource.UploadsPath, tusd.Middleware(methods(tusd)))
	h.extensions = tusd.SupportedExtensions() + ",checksum,checksum-trailer,expiration"
	return h, nil
}

// Serve gives tusd the connection's own writer: echo.Response takes an interim 104 for the final status.
func (h *Handler) Serve(c echo.Context) error {
	x := newExchange(h, c)
	if err := x.validate(); err != nil {
		x.cause = err
	} else {
		stop := x.interruptIfRefused()
		h.tusd.ServeHTTP(x, x.request)
		x.close() // tusd may have failed before it locked what was created
		stop()
	}
	if cause := x.finish(); cause != nil {
		problem.SetCause(c, cause)
	}
	c.Response().Status, c.Response().Size, c.Response().Committed = x.status, x.sent, true
	return nil
}

// Options tells what the server can do (tus 1.0.0, OPTIONS). That is no secret, and a browser that asks before it sends a
// request across origins has no token yet.
func (h *Handler) Options(c echo.Context) error {
	size := strconv.FormatInt(h.maxSize, 10)
	header := c.Response().Header()
	header.Set("Tus-Resumable", Version)
	header.Set("Tus-Version", Version)
	header.Set("Tus-Extension", h.extensions)
	header.Set("Tus-Checksum-Algorithm", strings.Join(object.ChecksumAlgorithms(), ","))
	header.Set("Tus-Max-Size", size)
	header.Set("Upload-Limit", "min-size=1,max-size="+size) // of the IETF draft
	return c.NoContent(http.StatusNoContent)
}

// NameProtocol sets what the protocol of a request wants in all answers, one to a bad token included: Tus-Resumable (tus
// 1.0.0), or the version of the IETF draft.
func NameProtocol(h http.Header, r *http.Request) {
	if v := draftVersion(r); v != "" {
		h.Set(DraftHeader, v)
	} else {
		h.Set("Tus-Resumable", Version)
	}
}

const overrideHeader = "X-HTTP-Method-Override"

// OverrideMethod returns the request under the method that a client means which cannot send all of them (tus 1.0.0,
// X-HTTP-Method-Override). It is a copy: to the connection the request is still what was sent.
func OverrideMethod(r *http.Request) *http.Request {
	m := r.Header.Get(overrideHeader)
	if m == "" || !strings.HasPrefix(r.URL.Path, resource.UploadsPath) {
		return r
	}
	r = r.WithContext(r.Context())
	r.Method = m
	return r
}

// methods routes by method.
func methods(tusd *handler.UnroutedHandler) http.Handler {
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

// create is tusd's callback before it creates an upload.
func (h *Handler) create(e handler.HookEvent) (handler.HTTPResponse, handler.FileInfoChanges, error) {
	x := exchangeOf(e.Context)
	create := h.uploads.Create
	if x.bringsContent() && !e.Upload.IsFinal {
		create = func(ctx context.Context, r hooks.Request) (a hooks.Admitted, err error) {
			a, x.locked, err = h.uploads.CreateHeld(ctx, r)
			return a, err
		}
	}
	a, err := create(e.Context, hooks.Request{
		Size: e.Upload.Size, SizeDeferred: e.Upload.SizeIsDeferred, Metadata: e.Upload.MetaData,
		MetadataHeader: e.HTTPRequest.Header.Get(metadataHeader),
		Partial:        e.Upload.IsPartial, Partials: e.Upload.PartialUploads,
	})
	if err != nil {
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, x.note(err)
	}
	if a.Existing && !e.Upload.IsFinal { // a final upload may have to be finished, which tusd does next
		// An error is tusd's way to answer at once. The client gets the address and the offset of the upload
		// it has; content that it sent along is not read.
		header := handler.HTTPHeader{
			"Location": h.address(e.HTTPRequest.Header, e.HTTPRequest.Header.Get("Host"), a.ID),
		}
		if a.Offset != hooks.Untold {
			header["Upload-Offset"] = strconv.FormatInt(a.Offset, 10)
			if e.Upload.SizeIsDeferred || a.Offset < e.Upload.Size {
				header["Upload-Expires"] = httpTime(h.uploads.Expiry.FromNow())
			}
		}
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, handler.Error{
			ErrorCode:    "EXISTING_UPLOAD",
			HTTPResponse: handler.HTTPResponse{StatusCode: http.StatusCreated, Header: header},
		}
	}
	return handler.HTTPResponse{}, handler.FileInfoChanges{ID: a.ID.String()}, nil
}

// address is the upload's in the answer to a request to host, as tusd forms it.
func (h *Handler) address(header http.Header, host string, id uuid.UUID) string {
	return h.Base(header, host) + resource.UploadsPath + "/" + id.String()
}

// base is what the addresses of uploads begin with: a path, where the public URL is not known.
func (h *Handler) base() string {
	return strings.TrimSuffix(h.PublicURL, "/") + resource.UploadsPath + "/"
}
