package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// A DeliveryState is the state of the delivery of an announcement to a webhook endpoint.
type DeliveryState string

// The states of a delivery.
const (
	Pending   DeliveryState = "pending"   // an attempt is under way or will be made
	Delivered DeliveryState = "delivered" // the endpoint answered 2xx
	Dead      DeliveryState = "dead"      // given up; it can be replayed
)

// Known reports whether s is one of the states.
func (s DeliveryState) Known() bool {
	return s == Pending || s == Delivered || s == Dead
}

// errorDisabled is the last error of deliveries that ended because their endpoint was disabled.
const errorDisabled = "endpoint_disabled"

// A Delivery is the delivery of one announcement to one webhook endpoint.
type Delivery struct {
	ID             uuid.UUID     `db:"id" json:"id"`
	AnnouncementID uuid.UUID     `db:"announcement_id" json:"webhook_id"` // the header Webhook-Id
	Type           string        `db:"type" json:"type"`
	UploadID       *uuid.UUID    `db:"upload_id" json:"upload_id"`
	BatchID        *uuid.UUID    `db:"batch_id" json:"batch_id"`
	State          DeliveryState `db:"state" json:"state"`
	Attempts       int           `db:"attempts" json:"attempts"` // since it began, or was replayed
	NextAttemptAt  *time.Time    `db:"next_attempt_at" json:"next_attempt_at"`
	LastAttemptAt  *time.Time    `db:"last_attempt_at" json:"last_attempt_at"`
	LastStatus     *int          `db:"last_status" json:"last_status"` // of HTTP; nil if there was no answer
	LastError      *string       `db:"last_error" json:"last_error"`
	LastMS         *int          `db:"last_ms" json:"last_duration_ms"`
	TraceID        *string       `db:"trace_id" json:"trace_id"`
	CreatedAt      time.Time     `db:"created_at" json:"created_at"`
	EndedAt        *time.Time    `db:"ended_at" json:"ended_at"`
}

const selectDelivery = `
	select d.id, d.announcement_id, a.type, a.upload_id, a.batch_id, d.state, d.attempts, d.next_attempt_at,
		d.last_attempt_at, d.last_status, d.last_error, d.last_ms, a.trace_id, d.created_at, d.ended_at
	from webhook_deliveries d join announcements a on a.tenant_id = d.tenant_id and a.id = d.announcement_id `

// A DeliveryPage asks for an endpoint's deliveries, newest first, that are older than Before (the zero id: from the
// newest). An empty State matches all.
type DeliveryPage struct {
	Endpoint uuid.UUID
	Before   uuid.UUID
	Limit    int
	State    DeliveryState
}

// listDeliveries returns one page; an endpoint that the tenant does not have is [storage.ErrNotFound].
func listDeliveries(ctx context.Context, tx storage.Tx, p DeliveryPage) ([]Delivery, error) {
	if _, err := find(ctx, tx, p.Endpoint); err != nil {
		return nil, err
	}
	if p.Before == uuid.Nil {
		p.Before = uuid.Max
	}
	rows, err := tx.Query(ctx, selectDelivery+`
		where d.tenant_id = $1 and d.endpoint_id = $2 and d.id < $3 and ($4 = '' or d.state = $4)
		order by d.id desc limit $5`, tx.Tenant, p.Endpoint, p.Before, string(p.State), p.Limit)
	return storage.Collect[Delivery]("list deliveries", rows, err)
}

// findDelivery returns the endpoint's delivery, or [storage.ErrNotFound].
func findDelivery(ctx context.Context, tx storage.Tx, endpoint, id uuid.UUID) (Delivery, error) {
	rows, err := tx.Query(ctx, selectDelivery+`where d.tenant_id = $1 and d.endpoint_id = $2 and d.id = $3`, tx.Tenant, endpoint, id)
	return storage.CollectOne[Delivery]("read delivery", rows, err)
}

// announceTest announces webhook.test to this endpoint and no other, and returns the delivery's id.
func announceTest(ctx context.Context, tx storage.Tx, endpoint uuid.UUID) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.Nil, err
	}
	_, err = tx.Exec(ctx, `
		with announced as (
			insert into announcements (tenant_id, type, detail, trace_id, dispatched_at)
			values ($1, $4, jsonb_build_object('endpoint_id', $2::text), nullif($5, ''), now()) returning tenant_id, id
		)
		insert into webhook_deliveries (tenant_id, id, endpoint_id, announcement_id)
		select tenant_id, $3, $2::uuid, id from announced`, tx.Tenant, endpoint.String(), id, storage.AnnounceWebhookTest, storage.TraceID(ctx))
	if err != nil {
		return uuid.Nil, fmt.Errorf("test webhook endpoint: %w", err)
	}
	return id, nil
}

// replayed restarts a delivery with all its attempts.
const replayed = `
	update webhook_deliveries set state = 'pending', attempts = 0, job_id = null, claimed_at = null,
		next_attempt_at = now(), ended_at = null
	where tenant_id = $1 and endpoint_id = $2 and state <> 'pending' and `

// replay restarts a delivery that ended. A pending one stays as it is.
func replay(ctx context.Context, tx storage.Tx, endpoint, id uuid.UUID) error {
	_, err := storage.Exec(ctx, tx, "replay delivery", replayed+`id = $3`, tx.Tenant, endpoint, id)
	return err
}

// replayDead restarts all dead letters created at since or later, and returns how many.
func replayDead(ctx context.Context, tx storage.Tx, endpoint uuid.UUID, since time.Time) (int64, error) {
	return storage.Exec(ctx, tx, "replay dead letters", replayed+`state = 'dead' and created_at >= $3`, tx.Tenant, endpoint, since)
}
