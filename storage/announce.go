package storage

import (
	"context"
	"fmt"
	"strings"

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

// An Announcement is something that happened and that others asked to be told of, by webhook or while they listen.
type Announcement struct {
	Type   string         // its object and what became of it, such as batch.completed; once used, it keeps its meaning
	Upload uuid.UUID      // that it is about; the zero id for none
	Batch  uuid.UUID      // that it is about; the zero id for none
	Detail map[string]any // whatever else belongs to the type; the tenant reads it
}

// Announce writes the announcement down, in the transaction that makes it true: so it is made once if that
// commits, and never otherwise.
func (tx Tx) Announce(ctx context.Context, a Announcement) error {
	if a.Detail == nil {
		a.Detail = map[string]any{}
	}
	var id uuid.UUID
	err := tx.QueryRow(ctx, `
		insert into announcements (tenant_id, type, upload_id, batch_id, detail, trace_id)
		values ($1, $2, $3, $4, $5, nullif($6, '')) returning id`,
		tx.Tenant, a.Type, OrNull(a.Upload), OrNull(a.Batch), a.Detail, TraceID(ctx)).Scan(&id)
	if err != nil {
		return fmt.Errorf("announce %s: %w", a.Type, err)
	}
	// Listeners are told of uploads themselves.
	if !strings.HasPrefix(a.Type, "upload.") {
		tx.Changed(announced, id)
	}
	return nil
}

// announceUploads announces what has become of uploads, if some endpoint of the tenant wants to know. Partial uploads are
// no files, and end unannounced.
func (tx Tx) announceUploads(ctx context.Context, ids []uuid.UUID, announcement string) error {
	_, err := tx.Exec(ctx, `
		insert into announcements (tenant_id, type, upload_id, batch_id, trace_id)
		select tenant_id, $3::text, id, batch_id, nullif($4, '') from uploads
		where tenant_id = $1 and id = any($2) and kind <> 'partial' and exists (
			select from webhook_endpoints e
			where e.tenant_id = $1 and e.disabled_at is null and (e.types = '{}' or $3 = any(e.types)))`,
		tx.Tenant, ids, announcement, TraceID(ctx))
	if err != nil {
		return fmt.Errorf("announce %s: %w", announcement, err)
	}
	return nil
}
