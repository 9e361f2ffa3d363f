package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	stdslog "log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/exp/slog"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// UploadsPath is where uploads live: tus writes them, GET reads their state.
const UploadsPath = "/api/uploads"

// newTus mounts tusd over the store. tusd speaks the protocol; what it gets wrong, or says in its own
// words, is put right around it.
func (s *Server) newTus() (http.Handler, error) {
	composer := handler.NewStoreComposer()
	composer.UseCore(notingStore{s.Store})
	composer.UseTerminater(notingStore{s.Store})
	composer.UseLocker(notingLocker{s.Locker})
	tusd, err := handler.NewUnroutedHandler(handler.Config{
		StoreComposer:           composer,
		BasePath:                strings.TrimSuffix(s.PublicURL, "/") + UploadsPath + "/",
		MaxSize:                 s.Admission.Policy.MaxSize,
		DisableDownload:         true,
		Cors:                    &handler.CorsConfig{Disable: true},
		Logger:                  slog.New(slog.NewTextHandler(io.Discard, nil)), // tusd logs file names and paths
		PreUploadCreateCallback: s.admit,
		NetworkTimeout:          s.NetworkTimeout,
		AcquireLockTimeout:      s.LockTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("set up tus: %w", err)
	}
	inner := http.StripPrefix(UploadsPath, tusd.Middleware(tusMethods(tusd)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pw := &problemWriter{ResponseWriter: w, method: r.Method, log: s.Log}
		if err := checkTusRequest(r); err != nil {
			pw.fail(err)
			return
		}
		ctx := context.WithValue(object.WithLeaseSlot(r.Context()), causeKey{}, pw)
		r = r.WithContext(ctx)
		r.Body = object.WatchBody(ctx, r.Body)
		inner.ServeHTTP(pw, r)
		pw.finish(ctx)
	}), nil
}

// tusMethods routes by method after tusd's middleware, which may have changed it for clients that cannot
// send PATCH or DELETE (tus 1.0.0, X-HTTP-Method-Override).
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

// checkTusRequest refuses what tusd lets pass: a role that may not write (even its HEAD would interrupt
// somebody's PATCH), a HEAD of another protocol version, and metadata that it would silently drop.
func checkTusRequest(r *http.Request) error {
	who, err := tenant.From(r.Context())
	if err != nil {
		return err
	}
	if !who.Role.CanUpload() && r.Method != http.MethodOptions {
		return hooks.ErrForbidden
	}
	if v := r.Header.Get("Tus-Resumable"); r.Method == http.MethodHead && v != "" && v != "1.0.0" {
		return handler.ErrUnsupportedVersion
	}
	if r.Method == http.MethodPost {
		return checkMetadataHeader(r.Header.Get("Upload-Metadata"))
	}
	return nil
}

// checkMetadataHeader holds the header to tus 1.0.0, Creation, Upload-Metadata: comma-separated pairs of a
// key, which is neither empty nor there twice, and a Base64 value, which may be left out.
func checkMetadataHeader(header string) error {
	if strings.TrimSpace(header) == "" {
		return nil
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(header, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
		switch {
		case key == "":
			return refuseMetadata("Upload-Metadata has a pair without a key.")
		case seen[key]:
			return refuseMetadata(fmt.Sprintf("Upload-Metadata has the key %q twice.", key))
		}
		seen[key] = true
		if _, err := base64.StdEncoding.DecodeString(value); err != nil {
			return refuseMetadata(fmt.Sprintf("The value of %q in Upload-Metadata is not Base64.", key))
		}
	}
	return nil
}

func refuseMetadata(detail string) error {
	return &hooks.Refusal{Cause: hooks.ErrBadMetadata, Detail: detail}
}

// admit is tusd's pre-create callback.
func (s *Server) admit(e handler.HookEvent) (handler.HTTPResponse, handler.FileInfoChanges, error) {
	if s.Bucket.Unavailable() {
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, note(e.Context, object.ErrUnavailable)
	}
	a, err := s.Admission.Admit(e.Context, e.Upload.Size, e.Upload.MetaData)
	if err != nil {
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, note(e.Context, err)
	}
	if a.Existing {
		// An error is tusd's way to answer at once. The client gets the address and the offset of the upload
		// it has; content that it sent along is not read.
		return handler.HTTPResponse{}, handler.FileInfoChanges{}, handler.Error{
			ErrorCode: "EXISTING_UPLOAD",
			HTTPResponse: handler.HTTPResponse{
				StatusCode: http.StatusCreated,
				Header: handler.HTTPHeader{
					"Location":      s.locate(e.HTTPRequest, a.ID.String()),
					"Upload-Offset": strconv.FormatInt(a.Offset, 10),
				},
			},
		}
	}
	return handler.HTTPResponse{}, handler.FileInfoChanges{ID: a.ID.String()}, nil
}

// locate returns the address of an upload as tusd forms it.
func (s *Server) locate(r handler.HTTPRequest, id string) string {
	base := strings.TrimSuffix(s.PublicURL, "/")
	if base == "" {
		base = "http://" + r.Header.Get("Host")
	}
	return base + UploadsPath + "/" + id
}

// A problemWriter lets tusd's successes pass and holds its errors back, to say them as problems.
type problemWriter struct {
	http.ResponseWriter
	method string
	log    *stdslog.Logger
	status int    // of an error held back; 0 for none
	body   []byte // what tusd says of it: its code, a colon, a text
	cause  error  // what our own parts told tusd, if the error is theirs
}

// Unwrap gives [http.ResponseController] the connection.
func (w *problemWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *problemWriter) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
}

func (w *problemWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		return w.ResponseWriter.Write(b)
	}
	w.body = append(w.body, b...)
	return len(b), nil
}

// fail answers with err.
func (w *problemWriter) fail(err error) {
	p, _ := asProblem(err)
	w.send(p)
}

// finish sends the error held back, if there is one.
func (w *problemWriter) finish(ctx context.Context) {
	if w.status == 0 {
		return
	}
	err := w.cause
	if err == nil {
		code, _, _ := strings.Cut(string(w.body), ":")
		err = handler.Error{ErrorCode: code, Message: string(w.body)}
	}
	p, known := asProblem(err)
	switch {
	case known:
	case w.status < http.StatusInternalServerError:
		p = problemOf("tus", w.status, http.StatusText(w.status), "The request does not follow tus 1.0.0.")
	default:
		w.log.ErrorContext(ctx, "tus request failed", stdslog.String("method", w.method), stdslog.Any("err", err))
	}
	w.send(p)
}

func (w *problemWriter) send(p problem) {
	w.Header().Set("Tus-Resumable", "1.0.0")
	if p.Status == http.StatusPreconditionFailed {
		w.Header().Set("Tus-Version", "1.0.0") // tus 1.0.0, Tus-Version: MUST on 412
	}
	writeProblem(w.ResponseWriter, w.method, p)
}
