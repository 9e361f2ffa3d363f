package problem

import (
	"net/http"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

const (
	retryDetail  = "Nothing is lost. Try again in a moment."
	resumeDetail = "Ask for the offset with HEAD, and continue from there."
)

// A row is a problem and the errors that it is the answer to.
type row struct {
	Problem
	causes []error
}

func on(name string, status int, title, detail string, causes ...error) row {
	return row{Problem{Type: Path + "/" + name, Title: title, Status: status, Detail: detail}, causes}
}

// table is the one place where an error gets its status. The first row with a cause that matches decides; a refusal brings
// its own detail.
var table = []row{
	on("request-too-large", 413, "Request is too large", "Send less in each request.", ErrBodyTooLarge),
	on("too-slow", 408, "Request came too slowly", "Send the request again, over a better connection if possible.", ErrTooSlow),
	on("headers-too-large", 431, "Request line and headers are too large", "Send fewer and shorter headers, or name fewer partial uploads in Upload-Concat.", ErrHeadTooLarge),
	on("too-many-connections", 503, "Too many connections", "Nothing is lost. Close connections that you do not need, and try again in a moment.", ErrTooManyConnections),
	on("unauthorized", 401, "Not signed in", "Send a valid token as Authorization: Bearer TOKEN. Tokens expire: sign in again to get a new one.", ErrUnauthorized),
	on("bad-request", 400, "Request is not valid", "Correct the request; sending it again unchanged will not help.", ErrBadRequest),
	on("bad-ticket", 401, "Ticket is not valid", "Get a new ticket with POST /api/events/tickets. Each works once, within 30 seconds.", ErrBadTicket),
	on("bad-link", 401, "Link is not valid", "GET the upload for a new link. Each leads to one thumbnail, for an hour at most, and ends with the token that it was got with.", ErrBadLink),
	on("too-many-listeners", 429, "Too many open event streams", "Close a stream before you open another. A stream without filters has all that you may see.", ErrTooManyListeners),
	on("foreign-origin", 403, "Origin is not allowed", "The operator of the installation can allow pages of this origin to use the API.", ErrForeignOrigin),
	on("method-not-allowed", 405, "Method not allowed", "This resource has other methods; Allow lists them.", ErrMethod),
	on("rate-limited", 429, "Too many requests", "Nothing is lost. Wait as long as Retry-After says, then continue.", ErrRateLimited),
	on("slow-down", 423, "Too many requests to uploads", "Nothing is lost. Wait as long as Retry-After says, then continue.", ErrSlowDown),
	on("tenant-busy", 423, "Too many uploads in progress", retryDetail, ErrTenantBusy),

	on("forbidden", 403, "Not allowed", "Your role can look at uploads, but not send, resume or cancel them.", tenant.ErrForbidden),
	on("not-your-project", 403, "Not one of your projects", "Name a project that your token includes, or ask your administrator for a token that includes this one.", hooks.ErrNotYourProject),
	on("empty", 422, "File is empty", "Choose a file that has content.", hooks.ErrEmpty),
	on("too-large", 413, "File is too large", "Send a smaller file. OPTIONS returns the maximum as Tus-Max-Size, in bytes.", hooks.ErrTooLarge, object.ErrTooLong),
	on("type-not-allowed", 415, "Type is not accepted", "Send a file of an accepted type.", hooks.ErrTypeNotAllowed),
	on("bad-metadata", 400, "Metadata is not valid", "Correct the Upload-Metadata header.", hooks.ErrBadMetadata),
	on("quota-exceeded", 413, "Quota exceeded", "Your company's quota is used up. Ask your administrator.", hooks.ErrNoRoom),
	on("client-id-taken", 409, "client_id is in use", "Use a new client_id for each file.", hooks.ErrClientIDTaken, storage.ErrDuplicateClientID),
	on("no-tenant", 403, "No such tenant", "Ask your administrator for a new token.", hooks.ErrNoTenant),
	on("suspended", 403, "Company is suspended", "Nothing is lost. Ask the operator of the installation.", ErrSuspended),
	on("checksum-mismatch", 422, "Checksum does not match", "Send the file again.", hooks.ErrChecksumMismatch),
	on("receipt-not-ready", 409, "Upload is not complete", "Keep the original. Ask for the receipt again once the upload is complete.", hooks.ErrReceiptNotReady),
	on("no-receipt", 409, "There is no receipt for this upload", "Keep the original.", hooks.ErrNoReceipt),
	on("receipts-off", 501, "Receipts are not configured", "Keep the original, or rely on the status of the upload. The operator of the installation can set TRAMO_RECEIPT_KEY_FILE.", hooks.ErrReceiptsOff),
	on("content-not-ready", 409, "Content is not ready", "Ask again once the upload is completed.", hooks.ErrContentNotReady),
	on("no-content", 409, "There is no content", "Send the file as a new upload.", hooks.ErrNoContent),
	on("no-such-range", 416, "There is no such range", "Content-Range has the size of the file. Ask for a range within it, or for the whole file without Range.", object.ErrNoSuchRange),
	on("same-admin", 403, "Another admin is needed", "The admin who requests the erasure of a company cannot approve it, nor can an admin of the same company at the same address. Ask another admin.", erasure.ErrSameAdmin),
	on("erasure-state", 409, "Erasure is in another state", "GET the erasure to see its state.", erasure.ErrWrongState),
	on("bad-request", 400, "Request is not valid", "Say what to erase.", erasure.ErrBadRequest),
	on("not-quarantined", 409, "Upload is not in quarantine", "Only an upload that the virus scan found infected can be released or erased here. GET the upload to see its state.", quarantine.ErrNotQuarantined),
	on("bad-request", 400, "Request is not valid", "Say why the file is safe.", quarantine.ErrBadReason),
	on("not-partial", 400, "Upload cannot be concatenated", "Name complete uploads that were created with Upload-Concat: partial, each of them once.", hooks.ErrNotPartial),
	on("partial-open", 409, "A partial upload is not complete", "Ask for the offset of each partial upload with HEAD, send the rest, and try again.", hooks.ErrPartialOpen),
	on("partial-taken", 409, "A partial upload is part of another upload", "Send its bytes again as a new partial upload.", hooks.ErrPartialTaken),
	on("webhook-url", 422, "URL is not allowed for webhooks", "Use an https:// URL whose host has public addresses.", ErrWebhookURL),
	on("webhooks-off", 501, "Webhooks are not configured", "The operator of the installation can set TRAMO_WEBHOOK_KEY.", webhook.ErrOff),
	on("webhook-disabled", 409, "Webhook endpoint is disabled", "Enable it first: PATCH it with {\"enabled\": true}.", webhook.ErrDisabled),
	on("too-many-webhooks", 409, "Too many webhook endpoints", "Delete one that is no longer needed. One endpoint can receive all types.", webhook.ErrTooMany),
	on("no-batch", 404, "No such batch", "Use the id of a batch, or a name of your own.", hooks.ErrNoBatch),
	on("other-project", 409, "Batch belongs to another project", "Use the project of the batch, or another batch.", hooks.ErrOtherProject),
	on("batch-cancelled", 409, "Batch was cancelled", "Create a new batch.", hooks.ErrBatchCancelled),
	on("bad-batch", 422, "Batch is not valid", "Correct the batch; sending it again unchanged will not help.", batch.ErrBadBatch),
	on("bad-manifest", 422, "Entries are not valid", "Nothing was created. Correct the entries that errors lists, and send the manifest again.", batch.ErrBadManifest),
	on("too-many-uploads", 413, "Too many uploads in one request", "Send fewer uploads in each request.", batch.ErrTooMany),
	on("idempotency-key-reused", 422, "Idempotency-Key belongs to another request", "Use a new Idempotency-Key for each request.", batch.ErrKeyReused),
	on("idempotency-key-busy", 409, "The same request is in progress", "Try again in a moment with the same Idempotency-Key.", batch.ErrKeyBusy),
	on("nothing-to-retry", 409, "Upload has not failed", "Only an upload that failed, and that was not sent again, can be processed again.", batch.ErrNothingToRetry, deadletter.ErrNothingToRetry),
	on("no-retry", 409, "Upload cannot be processed again", "A virus was found in this file. Have its owner check the device, and send a clean copy under a new client_id.", batch.ErrNoRetry),
	on("send-again", 409, "Upload must be sent again", "Nothing of this file is stored any more. Send it again; its client_id can be used again.", storage.ErrSendAgain),
	on("not-yours", 403, "Another user's upload", "You can GET this upload. Only the user who created it, or a manager of the company, can send to it or cancel it.", storage.ErrNotYours),
	on("not-found", 404, "Not found", "There is nothing at this address. Check the id.", ErrNotFound, storage.ErrNotFound),

	on("body-mismatch", 460, "Checksum Mismatch", "The body does not match Upload-Checksum. None of it was kept: send the same bytes again.", object.ErrChecksum),
	on("upload-checksum", 400, "Upload-Checksum is not valid", "Upload-Checksum is the name of an algorithm (sha1, sha256 or crc32), a space, and the checksum in Base64.", ErrUploadChecksum),
	on("expired", 410, "Upload has expired", "No bytes of this upload arrived for too long. Create a new upload and send the file again.", hooks.ErrExpired),
	on("gone", 410, "Upload has ended", "This upload takes no more bytes. Create a new upload.", hooks.ErrGone),
	on("lost", 410, "Upload cannot continue", "Stored bytes are gone. Create a new upload and send the file from its beginning.", object.ErrLost),
	on("unavailable", 503, "Temporarily unavailable", retryDetail, ErrKeysUnavailable, object.ErrUnavailable),
	on("busy", 423, "Upload is being finished", retryDetail, hooks.ErrNotFinished),
	on("complete", 409, "Part of another upload", "This upload is part of another one, or is being added to it. Delete the other one.", hooks.ErrPartOfAnother),

	on("tus-version", 412, "Unsupported tus version", "Send Tus-Resumable: 1.0.0, or Upload-Draft-Interop-Version: 3, 4, 5 or 6.", ErrTusVersion),
	on("beyond-length", 413, "More bytes than announced", "The body exceeds Upload-Length. Create a new upload with the size that the file has now.", object.ErrBeyondLength),
	on("content-type", 415, "Wrong content type", "PATCH requires Content-Type: application/offset+octet-stream, or application/partial-upload for the IETF draft.", ErrContentType),
	on("upload-length", 400, "Upload is not complete", "The request says that the upload is complete, but bytes are missing. "+resumeDetail, ErrIncomplete),
	on("draft-header", 400, "Header is not allowed here", "HEAD and DELETE must have neither Upload-Offset nor Upload-Complete nor Upload-Length.", ErrDraftHeader),
	on("upload-length", 400, "Upload-Length is missing or not valid", "Send the size of the file in bytes as Upload-Length: once, and not less than its offset.", ErrUploadLength, storage.ErrBadLength),
	on("upload-length", 400, "Upload-Length and Upload-Defer-Length exclude each other", "Send one of the two.", ErrTwoLengths),
	on("upload-length", 400, "Upload-Defer-Length is not valid", "Send 1, or send Upload-Length instead.", ErrDeferLength),
	on("upload-concat", 400, "Upload-Concat is not valid", "Send partial, or final; followed by the URLs of partial uploads, separated by spaces.", ErrUploadConcat),
	on("final", 403, "A final upload takes no bytes", "Send bytes to its partial uploads.", ErrFinal),
	on("upload-offset", 400, "Upload-Offset is missing or not valid", "Send the offset that HEAD returns.", ErrUploadOffset),
	on("offset-mismatch", 409, "Upload-Offset does not match", resumeDetail, ErrOffsetMismatch),
	on("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail, hooks.ErrBusy, lease.ErrHeld, storage.ErrFenced, object.ErrNoBuffer),
	on("busy", 423, "Another request took over", resumeDetail, object.ErrTakenOver),
	on("not-implemented", 501, "Not implemented", "OPTIONS lists what this server supports, as Tus-Extension.", ErrNotImplemented),
	on("unavailable", 503, "Server is restarting", resumeDetail, object.ErrStopping),
	on("cut-off", 423, "Connection was silent for too long", resumeDetail, ErrSilent),
	on("cut-off", 423, "Connection was cut off", resumeDetail, ErrCutOff),
	on("gave-way", 423, "Upload gave way to another", "Hardly anything arrived over this connection while others of your company waited. "+resumeDetail, ErrGaveWay),
}

// internal is for errors that the table does not have.
var internal = on("internal", 500, "Internal error", retryDetail).Problem

// Tus is the problem for an error of tusd's that the table does not have: only tusd knows its status.
func Tus(status int) Problem {
	return on("tus", status, http.StatusText(status), "The request does not follow tus 1.0.0.").Problem
}
