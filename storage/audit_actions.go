package storage

// The actions of the audit log. docs/reference/audit.md explains each: once used, a name keeps its meaning.
const (
	AuditTenantEnter       = "tenant.enter"
	AuditTenantExport      = "tenant.export"
	AuditRequestDeny       = "request.deny"
	AuditUploadContent     = "upload.content"
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

// AuditActions are all that there are: [Tx.Audit] writes no other.
func AuditActions() []string {
	return []string{
		AuditTenantEnter, AuditTenantExport, AuditRequestDeny,
		AuditUploadContent, AuditUploadRetry, AuditUploadDelete, AuditUploadRestore, AuditUploadPurge,
		AuditLetterRetry, AuditLetterDiscard,
		AuditUploadQuarantine, AuditQuarantineRelease, AuditQuarantineErase, AuditUploadRescan,
		AuditBatchRename, AuditBatchRetry, AuditBatchCancel,
		AuditErasureRequest, AuditErasureApprove, AuditErasureCancel, AuditErasureDone,
		AuditWebhookCreate, AuditWebhookUpdate, AuditWebhookRotate, AuditWebhookTest, AuditWebhookReplay, AuditWebhookDisable,
		AuditWebhookDelete,
	}
}
