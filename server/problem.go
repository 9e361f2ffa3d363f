package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/webhook"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// A problem is an error as a client sees it (RFC 9457). Type is stable and documented in docs/reference/problems.md;
// Detail tells a person what to do next. It never shows an internal cause. Facts are extension members (section
// 3.2), for programs.
type problem struct {
	Type   string
	Title  string
	Status int
	Detail string
	Facts  map[string]any

	RequestID string // finds the request in the logs, for a person who asks for help
}

// MarshalJSON implements [json.Marshaler].
func (p problem) MarshalJSON() ([]byte, error) {
	members := map[string]any{
		"type": p.Type, "title": p.Title, "status": p.Status, "detail": p.Detail, "request_id": p.RequestID,
	}
	for name, value := range p.Facts {
		if _, standard := members[name]; !standard {
			members[name] = value
		}
	}
	return json.Marshal(members)
}

const problemType = "application/problem+json"

// Errors of this package that have a place in the table.
var (
	errUnauthorized = errors.New("no valid token")
	errBadRequest   = errors.New("request is not valid")
	errNotFound     = errors.New("no such resource")
	errWebhookURL   = errors.New("URL is not one for webhooks")
	errMethod       = errors.New("resource has no such method")
)

func problemOf(name string, status int, title, detail string) problem {
	return problem{Type: ProblemsPath + "/" + name, Title: title, Status: status, Detail: detail}
}

const (
	retryDetail  = "Nothing is lost. Try again in a moment."
	resumeDetail = "Ask for the offset with HEAD and go on from there."
)

var unavailableProblem = problemOf("unavailable", 503, "Temporarily unavailable", retryDetail)

// problems is the one place where an error gets its status. The first cause that matches decides; a
// [hooks.Refusal] brings its own detail.
var problems = []struct {
	cause   error
	problem problem
}{
	{errBodyTooLarge, problemOf("request-too-large", 413, "Request is too large", "Send less at a time.")},
	{errTooSlow, problemOf("too-slow", 408, "Request came too slowly", "Send the request again, over a better connection if there is one.")},
	{errUnauthorized, problemOf("unauthorized", 401, "Not signed in", "Send a valid token as Authorization: Bearer TOKEN. Tokens run out: sign in again to get a new one.")},
	{errKeysAway, unavailableProblem},
	{errBadRequest, problemOf("bad-request", 400, "Request is not valid", "Correct the request; sending it again unchanged will not help.")},
	{storage.ErrBadTicket, problemOf("bad-ticket", 401, "Ticket is not valid", "Get a new ticket with POST /api/events/tickets. Each works once, within 30 seconds.")},
	{errTooManyListeners, problemOf("too-many-listeners", 429, "Too many open event streams", "Close a stream before you open another; one without filters tells of all that you may see.")},
	{errForeignOrigin, problemOf("foreign-origin", 403, "Origin is not allowed", "Whoever runs the installation can allow pages of this origin to use the API.")},
	{errNotFound, problemOf("not-found", 404, "Not found", "Nothing is at this address. Check the id.")},
	{errMethod, problemOf("method-not-allowed", 405, "Method not allowed", "This address takes other methods; Allow tells which.")},
	{errTooMany, problemOf("rate-limited", 429, "Too many requests", "Nothing is lost. Wait for as long as Retry-After says, and go on.")},
	{errTooManyTransfer, problemOf("slow-down", 423, "Too many requests to uploads", "Nothing is lost. Wait for as long as Retry-After says, and go on.")},
	{errTenantBusy, problemOf("tenant-busy", 423, "Too many uploads at a time", retryDetail)},

	{hooks.ErrForbidden, problemOf("forbidden", 403, "Not allowed", "Your role can look at uploads but not send, resume or cancel any.")},
	{hooks.ErrNotYourProject, problemOf("not-your-project", 403, "Not one of your projects", "Name a project that your token covers, or ask your administrator for one that covers it.")},
	{hooks.ErrEmpty, problemOf("empty", 422, "File is empty", "Choose a file that has content.")},
	{hooks.ErrTooLarge, problemOf("too-large", 413, "File is too large", "Send a smaller file; OPTIONS tells the most as Tus-Max-Size, in bytes.")},
	{hooks.ErrTypeNotAllowed, problemOf("type-not-allowed", 415, "Type is not accepted", "Send a file of an accepted type.")},
	{hooks.ErrBadMetadata, problemOf("bad-metadata", 400, "Metadata is not valid", "Correct the Upload-Metadata header.")},
	{hooks.ErrNoRoom, problemOf("quota-exceeded", 413, "No room left", "Your company's quota is used up. Ask your administrator.")},
	{hooks.ErrClientIDTaken, problemOf("client-id-taken", 409, "client_id is in use", "Use a new client_id for each file.")},
	{hooks.ErrNoTenant, problemOf("no-tenant", 403, "No such tenant", "Ask your administrator for a new token.")},
	{hooks.ErrChecksumMismatch, problemOf("checksum-mismatch", 422, "Content is not what was announced", "Send the file again.")},
	{hooks.ErrReceiptNotReady, problemOf("receipt-not-ready", 409, "Upload is not complete", "Keep the original. Ask for the receipt again once the upload is complete.")},
	{hooks.ErrNoReceipt, problemOf("no-receipt", 409, "There is no receipt for this upload", "Keep the original.")},
	{hooks.ErrReceiptsOff, problemOf("receipts-off", 501, "Receipts are not set up", "Keep the original, or rely on the status of the upload. Whoever runs the installation can set TRAMO_RECEIPT_KEY_FILE.")},
	{hooks.ErrContentNotReady, problemOf("content-not-ready", 409, "Content is not ready", "Ask again once the upload is completed.")},
	{hooks.ErrNoContent, problemOf("no-content", 409, "There is no content to give out", "Send the file as a new upload.")},
	{hooks.ErrBusy, problemOf("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{hooks.ErrSameAdmin, problemOf("same-admin", 403, "Another admin is needed", "Who asks for the erasure of a company can not approve it. Ask another admin.")},
	{hooks.ErrErasureState, problemOf("erasure-state", 409, "The erasure is past that", "Ask for the erasure with GET to see how far it is.")},
	{hooks.ErrBadErasure, problemOf("bad-request", 400, "Request is not valid", "Say what to erase.")},
	{hooks.ErrNotQuarantined, problemOf("not-quarantined", 409, "Upload is not in quarantine", "Only what a virus scan has found can be released, or erased here. Ask for the upload to see what has become of it.")},
	{hooks.ErrBadReason, problemOf("bad-request", 400, "Request is not valid", "Say why the file is safe.")},
	{hooks.ErrNotPartial, problemOf("not-partial", 400, "Upload can not be concatenated", "Name complete uploads that were created with Upload-Concat: partial, each once.")},
	{hooks.ErrPartialOpen, problemOf("partial-open", 409, "A partial upload is not complete", "Ask for the offset of each partial upload with HEAD, send the rest, and try again.")},
	{hooks.ErrPartialTaken, problemOf("partial-taken", 409, "A partial upload is part of another upload", "Send its bytes again as a new partial upload.")},
	{errWebhookURL, problemOf("webhook-url", 422, "URL is not one for webhooks", "Name an https:// URL whose host has public addresses.")},
	{webhook.ErrOff, problemOf("webhooks-off", 501, "Webhooks are not set up", "Whoever runs the installation can set TRAMO_WEBHOOK_KEY.")},
	{webhook.ErrDisabled, problemOf("webhook-disabled", 409, "Webhook endpoint is disabled", "Enable it first: PATCH it with {\"enabled\": true}.")},
	{storage.ErrTooManyWebhooks, problemOf("too-many-webhooks", 409, "Too many webhook endpoints", "Delete one that is no longer needed. One endpoint can take all types.")},
	{hooks.ErrNotManager, problemOf("not-manager", 403, "Only for managers", "Ask a manager of the company (constructora) to do this.")},
	{hooks.ErrNoBatch, problemOf("no-batch", 404, "No such batch", "Name a batch by its id, or by a name of your own.")},
	{hooks.ErrOtherProject, problemOf("other-project", 409, "Batch is of another project", "Name the project of the batch, or another batch.")},
	{hooks.ErrBatchCancelled, problemOf("batch-cancelled", 409, "Batch was cancelled", "Make a new batch.")},
	{hooks.ErrBadBatch, problemOf("bad-batch", 422, "Batch is not valid", "Correct the batch; sending it again unchanged will not help.")},
	{hooks.ErrBadManifest, problemOf("bad-manifest", 422, "Entries are not valid", "Nothing was created. Correct the entries that errors names, and send the manifest again.")},
	{hooks.ErrTooMany, problemOf("too-many-uploads", 413, "Too many uploads in one request", "Send fewer uploads in each request.")},
	{hooks.ErrKeyReused, problemOf("idempotency-key-reused", 422, "Idempotency-Key is another request's", "Use a new Idempotency-Key for each request.")},
	{hooks.ErrKeyBusy, problemOf("idempotency-key-busy", 409, "The same request is being worked on", "Try again in a moment with the same Idempotency-Key.")},
	{hooks.ErrNothingToRetry, problemOf("nothing-to-retry", 409, "Upload has not failed", "Only an upload that has failed, and was not sent again, can be processed again.")},
	{hooks.ErrNoRetry, problemOf("no-retry", 409, "Upload may not be processed again", "A virus was found in this file. Have its owner check the device, and send a clean copy under a new client_id.")},
	{storage.ErrSendAgain, problemOf("send-again", 409, "Upload must be sent again", "Nothing of this file is left here. Send it again; its client_id is free.")},
	{storage.ErrNotYours, problemOf("not-yours", 403, "Another user's upload", "You can look at this upload with GET. Only the user that began it, or a manager of the company, can send to it or cancel it.")},
	{storage.ErrNotFound, problemOf("not-found", 404, "Not found", "Nothing is at this address. Check the id.")},

	{object.ErrChecksum, problemOf("body-mismatch", 460, "Checksum Mismatch", "What arrived is not what Upload-Checksum announced. None of it was kept: send the same bytes again.")},
	{object.ErrChecksumHeader, problemOf("upload-checksum", 400, "Upload-Checksum is not valid", "Upload-Checksum is the name of an algorithm (sha1, sha256 or crc32), a space, and the checksum in Base64.")},
	{object.ErrExpired, problemOf("expired", 410, "Upload has expired", "Nothing of this upload had arrived for too long. Create a new one and send the file again.")},
	{object.ErrGone, problemOf("gone", 410, "Upload has ended", "This upload takes no more bytes. Create a new one.")},
	{object.ErrLost, problemOf("lost", 410, "Upload can not go on", "Stored bytes are gone. Create a new upload and send the file from its beginning.")},
	{object.ErrUnavailable, unavailableProblem},
	{object.ErrEmpty, problemOf("empty", 422, "File is empty", "The upload has ended. Choose a file that has content.")},
	{object.ErrBusy, problemOf("busy", 423, "Upload is being finished", retryDetail)},
	{object.ErrComplete, problemOf("complete", 409, "Part of another upload", "This upload is part of another one, or is just becoming that. Delete the other one.")},

	{handler.ErrUnsupportedVersion, problemOf("tus-version", 412, "Unsupported tus version", "Send Tus-Resumable: 1.0.0, or Upload-Draft-Interop-Version: 3, 4, 5 or 6.")},
	{handler.ErrMaxSizeExceeded, problemOf("too-large", 413, "File is too large", "Send a smaller file; OPTIONS tells the most as Tus-Max-Size, in bytes.")},
	{handler.ErrSizeExceeded, problemOf("beyond-length", 413, "More bytes than announced", "The body goes beyond Upload-Length. "+resumeDetail)},
	{handler.ErrInvalidContentType, problemOf("content-type", 415, "Wrong content type", "PATCH takes Content-Type: application/offset+octet-stream, or application/partial-upload as the IETF draft has it.")},
	{errIncomplete, problemOf("upload-length", 400, "Upload is not complete", "The request says that the upload is complete, but bytes are missing. "+resumeDetail)},
	{errDraftHeader, problemOf("draft-header", 400, "A header does not belong here", "HEAD and DELETE have neither Upload-Offset nor Upload-Complete nor Upload-Length.")},
	{handler.ErrInvalidUploadLength, problemOf("upload-length", 400, "Upload-Length is missing or not valid", "Send the size of the file in bytes as Upload-Length: once, not less than its offset, not more than Tus-Max-Size.")},
	{handler.ErrUploadLengthAndUploadDeferLength, problemOf("upload-length", 400, "Upload-Length and Upload-Defer-Length exclude each other", "Send one of both.")},
	{handler.ErrInvalidUploadDeferLength, problemOf("upload-length", 400, "Upload-Defer-Length is not valid", "It can only be 1; or send Upload-Length.")},
	{handler.ErrInvalidConcat, problemOf("upload-concat", 400, "Upload-Concat is not valid", "Send partial, or final; and the addresses of partial uploads, separated by spaces.")},
	{handler.ErrUploadNotFinished, problemOf("partial-open", 409, "A partial upload is not complete", "Ask for the offset of each partial upload with HEAD, send the rest, and try again.")},
	{handler.ErrModifyFinal, problemOf("final", 403, "A final upload takes no bytes", "Send bytes to its partial uploads.")},
	{handler.ErrInvalidOffset, problemOf("upload-offset", 400, "Upload-Offset is missing or not valid", "Send the offset that HEAD tells as Upload-Offset.")},
	{handler.ErrMismatchOffset, problemOf("offset-mismatch", 409, "Upload-Offset is not the upload's offset", resumeDetail)},
	{handler.ErrNotFound, problemOf("not-found", 404, "Not found", "Nothing is at this address. Check the id.")},
	{handler.ErrFileLocked, problemOf("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{handler.ErrLockTimeout, problemOf("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{handler.ErrUploadInterrupted, problemOf("busy", 423, "Another request took over", resumeDetail)},
	{handler.ErrNotImplemented, problemOf("not-implemented", 501, "Not implemented", "OPTIONS tells what this server can do, as Tus-Extension.")},
	{handler.ErrServerShutdown, problemOf("unavailable", 503, "Server is restarting", resumeDetail)},
	{handler.ErrReadTimeout, problemOf("cut-off", 423, "Connection was silent for too long", resumeDetail)},
	{handler.ErrConnectionReset, problemOf("cut-off", 423, "Connection was cut off", resumeDetail)},
	{handler.ErrUnexpectedEOF, problemOf("cut-off", 423, "Connection was cut off", resumeDetail)},
}

// refuse makes an error for a request that a person must correct.
func refuse(format string, args ...any) error {
	return &hooks.Refusal{Cause: errBadRequest, Detail: fmt.Sprintf(format, args...)}
}

// An entryProblem is what is wrong with one entry of a manifest.
type entryProblem struct {
	Index    int    `json:"index"` // from 0
	ClientID string `json:"client_id"`
	Type     string `json:"type"`
	Detail   string `json:"detail"`
}

func entryProblems(m *hooks.ManifestError) []entryProblem {
	found := make([]entryProblem, len(m.Entries))
	for i, e := range m.Entries {
		p, _ := asProblem(e.Err)
		found[i] = entryProblem{e.Index, e.ClientID, p.Type, p.Detail}
	}
	return found
}

var internalProblem = problemOf("internal", 500, "Something went wrong here", retryDetail)

// asProblem translates err for a client. known is false for an error that the table does not have, which
// is then worth a log entry.
func asProblem(err error) (p problem, known bool) {
	for _, row := range problems {
		if !errors.Is(err, row.cause) {
			continue
		}
		p = row.problem
		var r *hooks.Refusal
		if errors.As(err, &r) {
			p.Detail, p.Facts = r.Detail, r.Facts
		}
		var m *hooks.ManifestError
		if errors.As(err, &m) {
			p.Facts = map[string]any{"errors": entryProblems(m)}
		}
		return p, true
	}
	p = internalProblem
	if storage.IsUnavailable(err) {
		p = unavailableProblem
	}
	return p, errors.Is(err, context.Canceled) // then the client has gone, and that is no news
}

// handleError is echo's error handler: every error of every route but tus leaves here.
func (s *Server) handleError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	var he *echo.HTTPError
	if errors.As(err, &he) && he.Code < http.StatusInternalServerError {
		switch he.Code {
		case http.StatusNotFound:
			err = errNotFound
		case http.StatusMethodNotAllowed:
			err = errMethod
		default:
			err = errBadRequest
		}
	}
	p, known := asProblem(err)
	if !known {
		c.Set(causeKey, err)
	}
	s.denied(c, p)
	writeProblem(c.Response(), c.Request().Method, p)
}

// writeProblem sends p. Trouble on a HEAD that will pass is told as 423: on a 5xx tus-js-client forgets the
// upload's address and begins again from byte 0.
// It returns the status and the bytes that were sent.
func writeProblem(w http.ResponseWriter, method string, p problem) (status int, sent int64) {
	if method == http.MethodHead && p.Status >= http.StatusInternalServerError {
		p.Status = http.StatusLocked
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", problemType)
	h.Set("Cache-Control", "no-store")
	p.RequestID = h.Get(headerRequestID)
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tramo"`) // RFC 6750, section 3
	case http.StatusLocked, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "1")
		}
	}
	w.WriteHeader(p.Status)
	if method == http.MethodHead {
		return p.Status, 0
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // it is text and a number
	}
	n, _ := w.Write(text) // if it fails, the client has gone: there is nobody left to tell
	return p.Status, int64(n)
}
