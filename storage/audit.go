package storage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
)

// OutcomeDone is the outcome of an action that succeeded. Other outcomes name the problem that prevented it.
const OutcomeDone = "done"

// The actions of the audit log. docs/reference/audit.md explains each. A name that was used once keeps its meaning.
const (
	AuditTenantEnter       = "tenant.enter"
	AuditTenantExport      = "tenant.export"
	AuditTenantAdd         = "tenant.add"
	AuditTenantChange      = "tenant.change"
	AuditTenantSuspend     = "tenant.suspend"
	AuditTenantResume      = "tenant.resume"
	AuditTokenIssue        = "token.issue"
	AuditTokenRevoke       = "token.revoke"
	AuditRequestDeny       = "request.deny"
	AuditUploadContent     = "upload.content"
	AuditUploadThumbnails  = "upload.thumbnails"
	AuditUploadRetry       = "upload.retry"
	AuditUploadDelete      = "upload.delete"
	AuditUploadRestore     = "upload.restore"
	AuditUploadPurge       = "upload.purge"
	AuditLetterRetry       = "dead_letter.retry"
	AuditLetterDiscard     = "dead_letter.discard"
	AuditBatchRename       = "batch.rename"
	AuditBatchRetry        = "batch.retry"
	AuditBatchCancel       = "batch.cancel"
	AuditErasureRequest    = "erasure.request"
	AuditErasureApprove    = "erasure.approve"
	AuditErasureCancel     = "erasure.cancel"
	AuditErasureStart      = "erasure.start"
	AuditErasureDone       = "erasure.done"
	AuditWebhookCreate     = "webhook.create"
	AuditWebhookUpdate     = "webhook.update"
	AuditWebhookRotate     = "webhook.rotate"
	AuditWebhookTest       = "webhook.test"
	AuditWebhookReplay     = "webhook.replay"
	AuditWebhookDisable    = "webhook.disable"
	AuditWebhookDelete     = "webhook.delete"
	AuditUploadQuarantine  = "upload.quarantine"
	AuditQuarantineRelease = "upload.quarantine.release"
	AuditQuarantineErase   = "upload.quarantine.erase"
	AuditUploadRescan      = "upload.rescan"
)

// AuditActions are all actions: [Tx.Audit] refuses any other.
func AuditActions() []string {
	return []string{
		AuditTenantEnter, AuditTenantExport, AuditTenantAdd, AuditTenantChange, AuditTenantSuspend, AuditTenantResume,
		AuditTokenIssue, AuditTokenRevoke, AuditRequestDeny,
		AuditUploadContent, AuditUploadThumbnails, AuditUploadRetry, AuditUploadDelete, AuditUploadRestore, AuditUploadPurge,
		AuditLetterRetry, AuditLetterDiscard,
		AuditUploadQuarantine, AuditQuarantineRelease, AuditQuarantineErase, AuditUploadRescan,
		AuditBatchRename, AuditBatchRetry, AuditBatchCancel,
		AuditErasureRequest, AuditErasureApprove, AuditErasureCancel, AuditErasureStart, AuditErasureDone,
		AuditWebhookCreate, AuditWebhookUpdate, AuditWebhookRotate, AuditWebhookTest, AuditWebhookReplay, AuditWebhookDisable,
		AuditWebhookDelete,
	}
}

// An Audit is a new entry of the audit log. The context adds the user, the trace and the address.
type Audit struct {
	Action  string         // one of [AuditActions]: an object and a verb
	Subject string         // an id or a user; "" for the tenant itself
	Outcome string         // "" for [OutcomeDone]
	Detail  map[string]any // no filenames, no GPS positions, no secrets
}

// Audit appends to the tenant's audit log, in the transaction of the action. The database roles of servers and workers can
// neither change nor delete an entry.
func (tx Tx) Audit(ctx context.Context, a Audit) error {
	if !slices.Contains(AuditActions(), a.Action) {
		return fmt.Errorf("append to audit log: unknown action %q", a.Action)
	}
	if a.Outcome == "" {
		a.Outcome = OutcomeDone
	}
	from := tenant.OriginOf(ctx)
	_, err := Exec(ctx, tx, "append to audit log", `
		insert into audit (tenant_id, actor, role, home_tenant, action, subject, outcome, address, request_id, trace_id, detail)
		values ($1, $2, $3, $4, $5, nullif($6, ''), $7, nullif($8, ''), nullif($9, ''), nullif($10, ''), $11)`,
		tx.Tenant, tx.Who.User, tx.Who.Role, OrNull(tx.Who.Home), a.Action, a.Subject, a.Outcome,
		from.Address, from.RequestID, TraceID(ctx), orEmpty(a.Detail))
	return err
}

// An AuditEntry is a stored entry of the audit log.
type AuditEntry struct {
	Seq        int64          `db:"seq" json:"seq"` // ascending in a tenant, with gaps
	At         time.Time      `db:"at" json:"at"`
	Actor      string         `db:"actor" json:"actor"`
	Role       tenant.Role    `db:"role" json:"role"`
	HomeTenant *uuid.UUID     `db:"home_tenant" json:"home_tenant"` // of an admin of another tenant
	Action     string         `db:"action" json:"action"`
	Subject    *string        `db:"subject" json:"subject"`
	Outcome    string         `db:"outcome" json:"outcome"`
	Address    *string        `db:"address" json:"address"`
	RequestID  *string        `db:"request_id" json:"request_id"`
	TraceID    *string        `db:"trace_id" json:"trace_id"`
	Detail     map[string]any `db:"detail" json:"detail"`
}

// An AuditPage selects entries with a Seq below Before, newest first; 0 starts at the newest. Empty filters match all.
type AuditPage struct {
	Before  int64
	Limit   int
	Actor   string
	Action  string
	Subject string
}

// AuditLog returns one page.
func (tx Tx) AuditLog(ctx context.Context, p AuditPage) ([]AuditEntry, error) {
	rows, err := tx.Query(ctx, `
		select seq, at, actor, role, home_tenant, action, subject, outcome, address, request_id, trace_id, detail from audit
		where tenant_id = $1 and ($2::bigint = 0 or seq < $2) and ($3 = '' or actor = $3) and ($4 = '' or action = $4)
		  and ($5 = '' or subject = $5)
		order by seq desc limit $6`, tx.Tenant, p.Before, p.Actor, p.Action, p.Subject, p.Limit)
	return Collect[AuditEntry]("read audit log", rows, err)
}
