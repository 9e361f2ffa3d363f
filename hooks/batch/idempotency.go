package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// AnswerRetention is how long a repeated request with an idempotency key gets the answer of the first one, at least.
const AnswerRetention = 24 * time.Hour

var (
	// ErrKeyReused says that another request has the idempotency key.
	ErrKeyReused = errors.New("idempotency key is another request's")
	// ErrKeyBusy says that a request with the idempotency key is running.
	ErrKeyBusy = errors.New("a request with this idempotency key is running")
)

// An IdempotencyKey names a request that acts once, however often it is made (draft-ietf-httpapi-idempotency-key-header).
type IdempotencyKey struct {
	Key     string // the client's; "" for a request that acts each time
	Request []byte // SHA-256 of the request
}

// once runs do, whose effects and answer are committed with this transaction or not at all. If the user made the request
// before, it returns the answer that do gave then. It comes first in its transaction.
func once(ctx context.Context, tx storage.Tx, k IdempotencyKey, do func() ([]byte, error)) (answer []byte, again bool, err error) {
	if k.Key == "" {
		answer, err = do()
		return answer, false, err
	}
	// The lock goes with the transaction that has it, also if its process dies. The answer is visible before the lock is free.
	var free bool
	err = tx.QueryRow(ctx, `select pg_try_advisory_xact_lock(hashtextextended(concat_ws('/', 'idempotency', $1::uuid, $2::text, $3::text), 0))`,
		tx.Tenant, tx.Who.User, k.Key).Scan(&free)
	if err != nil {
		return nil, false, fmt.Errorf("lock idempotency key: %w", err)
	}
	if !free {
		return nil, false, ErrKeyBusy
	}
	var request []byte
	err = tx.QueryRow(ctx, `
		select request, answer from idempotency_keys where tenant_id = $1 and user_id = $2 and key = $3`,
		tx.Tenant, tx.Who.User, k.Key).Scan(&request, &answer)
	switch {
	case err == nil && !bytes.Equal(request, k.Request):
		return nil, false, ErrKeyReused
	case err == nil:
		return answer, true, nil
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, false, fmt.Errorf("read idempotency key: %w", err)
	}
	if answer, err = do(); err != nil {
		return nil, false, err
	}
	_, err = tx.Exec(ctx, `
		insert into idempotency_keys (tenant_id, user_id, key, request, answer) values ($1, $2, $3, $4, $5)`,
		tx.Tenant, tx.Who.User, k.Key, k.Request, answer)
	if err != nil {
		return nil, false, fmt.Errorf("keep answer: %w", err)
	}
	return answer, false, nil
}

// Answered reports whether a request with the user's key was answered before.
func Answered(ctx context.Context, tx storage.Tx, k IdempotencyKey) (yes bool, err error) {
	err = tx.QueryRow(ctx, `
		select exists (select from idempotency_keys where tenant_id = $1 and user_id = $2 and key = $3)`,
		tx.Tenant, tx.Who.User, k.Key).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look for idempotency key: %w", err)
	}
	return yes, nil
}

// ForgetAnswers deletes the answers of all tenants that are older than [AnswerRetention] and returns how many there were. It
// needs an operator's role.
func ForgetAnswers(ctx context.Context, db *storage.DB) (int64, error) {
	return storage.Exec(ctx, db.Pool(), "forget answers", `delete from idempotency_keys where created_at < now() - $1::interval`, AnswerRetention)
}
