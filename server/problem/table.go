package problem

import (
	"net/http"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

const (
	retryDetail  = "Nothing is lost. Try again in a moment."
	resumeDetail = "Ask for the offset with HEAD and go on from there."
)

var (
	unavailable = New("unavailable", 503, "Temporarily unavailable", retryDetail)
	internal    = New("internal", 500, "Something went wrong here", retryDetail)
)

// Tus is the problem for an error of tusd's that the table does not have: only tusd knows its status.
func Tus(status int) Problem {
	return New("tus", status, http.StatusText(status), "The request does not follow tus 1.0.0.")
}

// table is the one place where an error gets its status. The first cause that matches decides; a refusal brings its
// own detail.
var table = []struct {
	cause   error
	problem Problem
}{
	{ErrBodyTooLarge, New("request-too-large", 413, "Request is too large", "Send less in each request.")},
	{ErrTooSlow, New("too-slow", 408, "Request came too slowly", "Send the request again, over a better connection if possible.")},
	{ErrUnauthorized, New("unauthorized", 401, "Not signed in", "Send a valid token as Authorization: Bearer TOKEN. Tokens expire: sign in again to get a new one.")},
	{ErrKeysUnavailable, unavailable},
	{ErrBadRequest, New("bad-request", 400, "Request is not valid", "Correct the request; sending it again unchanged will not help.")},
	{ErrBadTicket, New("bad-ticket", 401, "Ticket is not valid", "Get a new ticket with POST /api/events/tickets. Each works once, within 30 seconds.")},
	{ErrTooManyListeners, New("too-many-listeners", 429, "Too many open event streams", "Close a stream before you open another. A stream without filters has all that you may see.")},
	{ErrForeignOrigin, New("foreign-origin", 403, "Origin is not allowed", "The operator of the installation can allow pages of this origin to use the API.")},
	{ErrNotFound, New("not-found", 404, "Not found", "There is nothing at this address. Check the id.")},
	{ErrMethod, New("method-not-allowed", 405, "Method not allowed", "This resource has other methods; Allow lists them.")},
	{ErrRateLimited, New("rate-limited", 429, "Too many requests", "Nothing is lost. Wait as long as Retry-After says, then continue.")},
	{ErrSlowDown, New("slow-down", 423, "Too many requests to uploads", "Nothing is lost. Wait as long as Retry-After says, then continue.")},
	{ErrTenantBusy, New("tenant-busy", 423, "Too many uploads in progress", retryDetail)},

	{hooks.ErrForbidden, New("forbidden", 403, "Not allowed", "Your role can look at uploads, but not send, resume or cancel them.")},
	{hooks.ErrNotYourProject, New("not-your-project", 403, "Not one of your projects", "Name a project that your token includes, or ask your administrator for a token that includes this one.")},
	{hooks.ErrEmpty, New("empty", 422, "File is empty", "Choose a file that has content.")},
	{hooks.ErrTooLarge, New("too-large", 413, "File is too large", "Send a smaller file. OPTIONS returns the maximum as Tus-Max-Size, in bytes.")},
	{hooks.ErrTypeNotAllowed, New("type-not-allowed", 415, "Type is not accepted", "Send a file of an accepted type.")},
	{hooks.ErrBadMetadata, New("bad-metadata", 400, "Metadata is not valid", "Correct the Upload-Metadata header.")},
	{hooks.ErrNoRoom, New("quota-exceeded", 413, "Quota exceeded", "Your company's quota is used up. Ask your administrator.")},
	{hooks.ErrClientIDTaken, New("client-id-taken", 409, "client_id is in use", "Use a new client_id for each file.")},
	{storage.ErrDuplicateClientID, New("client-id-taken", 409, "client_id is in use", "Use a new client_id for each file.")},
	{hooks.ErrNoTenant, New("no-tenant", 403, "No such tenant", "Ask your administrator for a new token.")},
	{hooks.ErrChecksumMismatch, New("checksum-mismatch", 422, "Checksum does not match", "Send the file again.")},
	{hooks.ErrReceiptNotReady, New("receipt-not-ready", 409, "Upload is not complete", "Keep the original. Ask for the receipt again once the upload is complete.")},
	{hooks.ErrNoReceipt, New("no-receipt", 409, "There is no receipt for this upload", "Keep the original.")},
	{hooks.ErrReceiptsOff, New("receipts-off", 501, "Receipts are not configured", "Keep the original, or rely on the status of the upload. The operator of the installation can set TRAMO_RECEIPT_KEY_FILE.")},
	{hooks.ErrContentNotReady, New("content-not-ready", 409, "Content is not ready", "Ask again once the upload is completed.")},
	{hooks.ErrNoContent, New("no-content", 409, "There is no content", "Send the file as a new upload.")},
	{hooks.ErrBusy, New("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{erasure.ErrSameAdmin, New("same-admin", 403, "Another admin is needed", "The admin who requests the erasure of a company cannot approve it. Ask another admin.")},
	{erasure.ErrWrongState, New("erasure-state", 409, "Erasure is in another state", "GET the erasure to see its state.")},
	{erasure.ErrBadRequest, New("bad-request", 400, "Request is not valid", "Say what to erase.")},
	{hooks.ErrNotQuarantined, New("not-quarantined", 409, "Upload is not in quarantine", "Only an upload that the virus scan found infected can be released or erased here. GET the upload to see its state.")},
	{hooks.ErrBadReason, New("bad-request", 400, "Request is not valid", "Say why the file is safe.")},
	{hooks.ErrNotPartial, New("not-partial", 400, "Upload cannot be concatenated", "Name complete uploads that were created with Upload-Concat: partial, each of them once.")},
	{hooks.ErrPartialOpen, New("partial-open", 409, "A partial upload is not complete", "Ask for the offset of each partial upload with HEAD, send the rest, and try again.")},
	{hooks.ErrPartialTaken, New("partial-taken", 409, "A partial upload is part of another upload", "Send its bytes again as a new partial upload.")},
	{ErrWebhookURL, New("webhook-url", 422, "URL is not allowed for webhooks", "Use an https:// URL whose host has public addresses.")},
	{webhook.ErrOff, New("webhooks-off", 501, "Webhooks are not configured", "The operator of the installation can set TRAMO_WEBHOOK_KEY.")},
	{webhook.ErrDisabled, New("webhook-disabled", 409, "Webhook endpoint is disabled", "Enable it first: PATCH it with {\"enabled\": true}.")},
	{webhook.ErrTooMany, New("too-many-webhooks", 409, "Too many webhook endpoints", "Delete one that is no longer needed. One endpoint can receive all types.")},
	{hooks.ErrNotManager, New("not-manager", 403, "Only for managers", "Ask a manager of the company (constructora) to do this.")},
	{hooks.ErrNoBatch, New("no-batch", 404, "No such batch", "Use the id of a batch, or a name of your own.")},
	{hooks.ErrOtherProject, New("other-project", 409, "Batch belongs to another project", "Use the project of the batch, or another batch.")},
	{hooks.ErrBatchCancelled, New("batch-cancelled", 409, "Batch was cancelled", "Create a new batch.")},
	{hooks.ErrBadBatch, New("bad-batch", 422, "Batch is not valid", "Correct the batch; sending it again unchanged will not help.")},
	{hooks.ErrBadManifest, New("bad-manifest", 422, "Entries are not valid", "Nothing was created. Correct the entries that errors lists, and send the manifest again.")},
	{hooks.ErrTooMany, New("too-many-uploads", 413, "Too many uploads in one request", "Send fewer uploads in each request.")},
	{hooks.ErrKeyReused, New("idempotency-key-reused", 422, "Idempotency-Key belongs to another request", "Use a new Idempotency-Key for each request.")},
	{hooks.ErrKeyBusy, New("idempotency-key-busy", 409, "The same request is in progress", "Try again in a moment with the same Idempotency-Key.")},
	{hooks.ErrNothingToRetry, New("nothing-to-retry", 409, "Upload has not failed", "Only an upload that failed, and that was not sent again, can be processed again.")},
	{deadletter.ErrNothingToRetry, New("nothing-to-retry", 409, "Upload has not failed", "Only an upload that failed, and that was not sent again, can be processed again.")},
	{hooks.ErrNoRetry, New("no-retry", 409, "Upload cannot be processed again", "A virus was found in this file. Have its owner check the device, and send a clean copy under a new client_id.")},
	{storage.ErrSendAgain, New("send-again", 409, "Upload must be sent again", "Nothing of this file is stored any more. Send it again; its client_id can be used again.")},
	{storage.ErrNotYours, New("not-yours", 403, "Another user's upload", "You can GET this upload. Only the user who created it, or a manager of the company, can send to it or cancel it.")},
	{storage.ErrNotFound, New("not-found", 404, "Not found", "There is nothing at this address. Check the id.")},

	{object.ErrChecksum, New("body-mismatch", 460, "Checksum Mismatch", "What arrived is not what Upload-Checksum announced. None of it was kept: send the same bytes again.")},
	{ErrUploadChecksum, New("upload-checksum", 400, "Upload-Checksum is not valid", "Upload-Checksum is the name of an algorithm (sha1, sha256 or crc32), a space, and the checksum in Base64.")},
	{hooks.ErrExpired, New("expired", 410, "Upload has expired", "Nothing of this upload had arrived for too long. Create a new one and send the file again.")},
	{hooks.ErrGone, New("gone", 410, "Upload has ended", "This upload takes no more bytes. Create a new one.")},
	{object.ErrLost, New("lost", 410, "Upload can not go on", "Stored bytes are gone. Create a new upload and send the file from its beginning.")},
	{object.ErrUnavailable, unavailable},
	{hooks.ErrNotFinished, New("busy", 423, "Upload is being finished", retryDetail)},
	{hooks.ErrPartOfAnother, New("complete", 409, "Part of another upload", "This upload is part of another one, or is just becoming that. Delete the other one.")},

	{ErrTusVersion, New("tus-version", 412, "Unsupported tus version", "Send Tus-Resumable: 1.0.0, or Upload-Draft-Interop-Version: 3, 4, 5 or 6.")},
	{object.ErrTooLong, New("too-large", 413, "File is too large", "Send a smaller file; OPTIONS tells the most as Tus-Max-Size, in bytes.")},
	{ErrBeyondLength, New("beyond-length", 413, "More bytes than announced", "The body goes beyond Upload-Length. "+resumeDetail)},
	{ErrContentType, New("content-type", 415, "Wrong content type", "PATCH takes Content-Type: application/offset+octet-stream, or application/partial-upload as the IETF draft has it.")},
	{ErrIncomplete, New("upload-length", 400, "Upload is not complete", "The request says that the upload is complete, but bytes are missing. "+resumeDetail)},
	{ErrDraftHeader, New("draft-header", 400, "A header does not belong here", "HEAD and DELETE have neither Upload-Offset nor Upload-Complete nor Upload-Length.")},
	{ErrUploadLength, New("upload-length", 400, "Upload-Length is missing or not valid", "Send the size of the file in bytes as Upload-Length: once, not less than its offset, not more than Tus-Max-Size.")},
	{storage.ErrBadLength, New("upload-length", 400, "Upload-Length is missing or not valid", "Send the size of the file in bytes as Upload-Length: once, not less than its offset, not more than Tus-Max-Size.")},
	{ErrTwoLengths, New("upload-length", 400, "Upload-Length and Upload-Defer-Length exclude each other", "Send one of both.")},
	{ErrDeferLength, New("upload-length", 400, "Upload-Defer-Length is not valid", "It can only be 1; or send Upload-Length.")},
	{ErrUploadConcat, New("upload-concat", 400, "Upload-Concat is not valid", "Send partial, or final; and the addresses of partial uploads, separated by spaces.")},
	{ErrFinal, New("final", 403, "A final upload takes no bytes", "Send bytes to its partial uploads.")},
	{ErrUploadOffset, New("upload-offset", 400, "Upload-Offset is missing or not valid", "Send the offset that HEAD tells as Upload-Offset.")},
	{ErrOffsetMismatch, New("offset-mismatch", 409, "Upload-Offset is not the upload's offset", resumeDetail)},
	{lease.ErrHeld, New("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{storage.ErrFenced, New("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{object.ErrNoBuffer, New("busy", 423, "Upload is busy", "Another request works on this upload. "+retryDetail)},
	{object.ErrTakenOver, New("busy", 423, "Another request took over", resumeDetail)},
	{ErrNotImplemented, New("not-implemented", 501, "Not implemented", "OPTIONS tells what this server can do, as Tus-Extension.")},
	{object.ErrStopping, New("unavailable", 503, "Server is restarting", resumeDetail)},
	{ErrSilent, New("cut-off", 423, "Connection was silent for too long", resumeDetail)},
	{ErrCutOff, New("cut-off", 423, "Connection was cut off", resumeDetail)},
}
