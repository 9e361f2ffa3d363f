package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// An attempt has what one attempt to deliver needs.
type attempt struct {
	EndpointID     uuid.UUID      `db:"endpoint_id"`
	URL            string         `db:"url"`
	AnnouncementID uuid.UUID      `db:"announcement_id"`
	Type           string         `db:"type"`
	At             time.Time      `db:"created_at"` // of the announcement
	UploadID       *uuid.UUID     `db:"upload_id"`
	BatchID        *uuid.UUID     `db:"batch_id"`
	Detail         map[string]any `db:"detail"`
	Made           int            `db:"attempts"` // attempts before this one
	Secrets        [][]byte       `db:"secrets"`  // sealed, the current one first
}

// readAttempt returns what the job's attempt needs, or [storage.ErrNotFound] if the delivery was deleted, has ended or has another
// job, or if its endpoint is disabled.
func readAttempt(ctx context.Context, tx storage.Tx, delivery uuid.UUID, job int64) (attempt, error) {
	rows, err := tx.Query(ctx, `
		select d.endpoint_id, e.url, d.announcement_id, a.type, a.created_at, a.upload_id, a.batch_id, a.detail, d.attempts, array(
			select s.sealed from webhook_secrets s
			where s.tenant_id = d.tenant_id and s.endpoint_id = d.endpoint_id and (s.valid_until is null or s.valid_until > now())
			order by s.valid_until nulls first) secrets
		from webhook_deliveries d
			join webhook_endpoints e on e.tenant_id = d.tenant_id and e.id = d.endpoint_id
			join announcements a on a.tenant_id = d.tenant_id and a.id = d.announcement_id
		where d.tenant_id = $1 and d.id = $2 and d.job_id = $3 and d.state = 'pending' and e.disabled_at is null`,
		tx.Tenant, delivery, job)
	return storage.CollectOne[attempt]("read delivery", rows, err)
}

// A result is how an attempt ended.
type result struct {
	Endpoint uuid.UUID
	Delivery uuid.UUID
	Job      int64
	Status   int           // of HTTP; 0 if there was no answer
	Error    string        // a word; "" for success
	Took     time.Duration // until the answer, or until the attempt failed
	RetryAt  time.Time     // the next attempt; the zero time for none
	Hold     bool          // the endpoint asked for nothing before RetryAt
	Gone     bool          // the endpoint answered 410
}

// recordAttempt records the result of an attempt, unless the delivery has another job: [storage.ErrNotFound]. It disables an endpoint
// that is gone, or at which no attempt succeeded for patience, and returns the reason.
func recordAttempt(ctx context.Context, tx storage.Tx, r result, patience time.Duration) (disabled string, err error) {
	disabled, err = judgeEndpoint(ctx, tx, r, patience)
	if err != nil {
		return "", err
	}
	state := Pending
	switch {
	case r.Error == "":
		state = Delivered
	case r.RetryAt.IsZero():
		state = Dead
	}
	tag, err := tx.Exec(ctx, `
		update webhook_deliveries set state = $4, attempts = attempts + 1, job_id = null, last_attempt_at = now(),
			next_attempt_at = $5, ended_at = case when $4 = 'pending' then null else now() end,
			last_status = $6, last_error = nullif($7, ''), last_ms = $8
		where tenant_id = $1 and id = $2 and job_id = $3 and state = 'pending'`,
		tx.Tenant, r.Delivery, r.Job, string(state), storage.OrNull(r.RetryAt), storage.OrNull(r.Status), r.Error, r.Took.Milliseconds())
	if err != nil {
		return "", fmt.Errorf("record delivery: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return "", storage.ErrNotFound
	}
	if disabled == "" {
		return "", nil
	}
	return disabled, disable(ctx, tx, r.Endpoint, disabled)
}

// judgeEndpoint records whether the endpoint fails, and returns why it must be disabled, if it must. Most attempts change and lock
// nothing.
func judgeEndpoint(ctx context.Context, tx storage.Tx, r result, patience time.Duration) (string, error) {
	if r.Error == "" {
		_, err := tx.Exec(ctx, `
			update webhook_endpoints set failing_since = null, held_until = null
			where tenant_id = $1 and id = $2 and failing_since is not null`, tx.Tenant, r.Endpoint)
		if err != nil {
			return "", fmt.Errorf("note success of webhook endpoint: %w", err)
		}
		return "", nil
	}
	var held *time.Time
	if r.Hold {
		held = storage.OrNull(r.RetryAt)
	}
	var since time.Time
	err := tx.QueryRow(ctx, `
		update webhook_endpoints set failing_since = coalesce(failing_since, now()), held_until = greatest(held_until, $3)
		where tenant_id = $1 and id = $2 and disabled_at is null
		  and (failing_since is null or $3::timestamptz is not null or $4 or failing_since < now() - $5::interval)
		returning failing_since`, tx.Tenant, r.Endpoint, held, r.Gone, patience).Scan(&since)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("note failure of webhook endpoint: %w", err)
	case r.Gone:
		return DisabledGone, nil
	case time.Since(since) > patience:
		return DisabledFailing, nil
	}
	return "", nil
}
