package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// The types of announcements. Receivers of webhooks read them, and docs/reference/webhooks.md explains them: once used, a name
// keeps its meaning.
const (
	AnnounceUploadCompleted = "upload.completed"
	AnnounceUploadFailed    = "upload.failed"
	AnnounceUploadExpired   = "upload.expired"
	AnnounceUploadCancelled = "upload.cancelled"
	AnnounceBatchCompleted  = "batch.completed"
	AnnounceBatchFailed     = "batch.failed"
	AnnounceQuotaWarning    = "quota.warning"
	AnnounceWebhookDisabled = "webhook.disabled"
	AnnounceWebhookTest     = "webhook.test" // goes to the endpoint that is tested, whatever that wants
)

// AnnouncementTypes are those that an endpoint can choose from.
func AnnouncementTypes() []string {
	return []string{
		AnnounceUploadCompleted, AnnounceUploadFailed, AnnounceUploadExpired, AnnounceUploadCancelled,
		AnnounceBatchCompleted, AnnounceBatchFailed, AnnounceQuotaWarning, AnnounceWebhookDisabled,
	}
}

// uploadEnds are the events of which others are told, and as what.
var uploadEnds = map[Event]string{
	EventCompleted: AnnounceUploadCompleted,
	EventFailed:    AnnounceUploadFailed,
	EventExpired:   AnnounceUploadExpired,
	EventCancelled: AnnounceUploadCancelled,
}

// announceUpload announces that an upload has ended, if some endpoint of the tenant wants to know. Partial uploads are
// no files, and end unannounced.
func (tx Tx) announceUpload(ctx context.Context, id uuid.UUID, e Event) error {
	announced, ok := uploadEnds[e]
	if !ok {
		return nil
	}
	_, err := tx.Exec(ctx, `
		insert into announcements (tenant_id, type, upload_id, batch_id, trace_id)
		select tenant_id, $3::text, id, batch_id, nullif($4, '') from uploads
		where tenant_id = $1 and id = $2 and kind <> 'partial' and exists (
			select from webhook_endpoints e
			where e.tenant_id = $1 and e.disabled_at is null and (e.types = '{}' or $3 = any(e.types)))`,
		tx.Tenant, id, announced, TraceID(ctx))
	if err != nil {
		return fmt.Errorf("announce %s: %w", announced, err)
	}
	return nil
}
