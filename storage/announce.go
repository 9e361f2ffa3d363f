package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// The types of announcements. Webhooks deliver them, and docs/reference/webhooks.md explains them: a name that was used once
// keeps its meaning.
const (
	AnnounceUploadCompleted  = "upload.completed"
	AnnounceUploadFailed     = "upload.failed"
	AnnounceUploadExpired    = "upload.expired"
	AnnounceUploadCancelled  = "upload.cancelled"
	AnnounceBatchCompleted   = "batch.completed"
	AnnounceBatchFailed      = "batch.failed"
	AnnounceQuotaWarning     = "quota.warning"
	AnnounceErasureScheduled = "erasure.scheduled"
	AnnounceErasureCancelled = "erasure.cancelled"
	AnnounceWebhookDisabled  = "webhook.disabled"
	AnnounceWebhookTest      = "webhook.test" // goes to the tested endpoint only, whatever types it subscribed to
)

// AnnouncementTypes are those that an endpoint can subscribe to.
func AnnouncementTypes() []string {
	return []string{
		AnnounceUploadCompleted, AnnounceUploadFailed, AnnounceUploadExpired, AnnounceUploadCancelled,
		AnnounceBatchCompleted, AnnounceBatchFailed, AnnounceQuotaWarning, AnnounceWebhookDisabled,
		AnnounceErasureScheduled, AnnounceErasureCancelled,
	}
}

// An Announcement is delivered to webhooks and to listeners.
type Announcement struct {
	Type   string         // an object and what happened to it, such as batch.completed
	Upload uuid.UUID      // the zero id for none
	Batch  uuid.UUID      // the zero id for none
	Detail map[string]any // depends on the type; the tenant reads it
}

// Announce writes the announcement in the transaction that makes it true: it is delivered if that commits, and only then.
func (tx Tx) Announce(ctx context.Context, a Announcement) error {
	var id uuid.UUID
	err := tx.QueryRow(ctx, `
		insert into announcements (tenant_id, type, upload_id, batch_id, detail, trace_id)
		values ($1, $2, $3, $4, $5, nullif($6, '')) returning id`,
		tx.Tenant, a.Type, OrNull(a.Upload), OrNull(a.Batch), orEmpty(a.Detail), TraceID(ctx)).Scan(&id)
	if err != nil {
		return fmt.Errorf("announce %s: %w", a.Type, err)
	}
	// Listeners get the uploads themselves.
	if !strings.HasPrefix(a.Type, "upload.") {
		tx.Changed(announced, id)
	}
	return nil
}

// announceUploads announces the end of uploads if an endpoint of the tenant subscribes to it. Partial uploads are not
// announced, because clients do not see them as files.
func (tx Tx) announceUploads(ctx context.Context, ids []uuid.UUID, announcement string) {
	Later(tx, "announce "+announcement, `
		insert into announcements (tenant_id, type, upload_id, batch_id, trace_id)
		select tenant_id, $3::text, id, batch_id, nullif($4, '') from uploads
		where tenant_id = $1 and id = any($2) and kind <> 'partial' and exists (
			select from webhook_endpoints e
			where e.tenant_id = $1 and e.disabled_at is null and (e.types = '{}' or $3 = any(e.types)))`,
		tx.Tenant, ids, announcement, TraceID(ctx))
}
