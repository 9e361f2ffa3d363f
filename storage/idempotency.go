package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// KeepAnswers is for how long at least a request under an idempotency key is answered as it was the first time.
const KeepAnswers = 24 * time.Hour

var (
	// ErrKeyReused says that another request was made under the idempotency key.
	ErrKeyReused = errors.New("idempotency key is another request's")
	// ErrKeyBusy says that a request under the idempotency key is being worked on.
	ErrKeyBusy = errors.New("a request with this idempotency key is running")
)

// A Once names a request that is to act once, however often it is made (draft-ietf-httpapi-idempotency-key-header).
type Once struct {
	Key     string // the client's; "" for a request that acts each time
	Request []byte // SHA-256 of what is asked for
}

// Once runs do, whose effects and answer are committed with this transaction or not at all. If that was done before under
// this user's key, it returns the answer that do gave then. It comes first in its transaction.
func (tx Tx) Once(ctx context.Context, o Once, do func() ([]byte, error)) (answer []byte, again bool, err error) {
	if o.Key == "" {
		answer, err = do()
		return answer, false, err
	}
	// The lock says that somebody is at it, and is gone with whoever died of it. What it guarded is visible by then.
	var free bool
	err = tx.QueryRow(ctx, `select pg_try_advisory_xact_lock(hashtextextended(concat_ws('/', 'once', $1::uuid, $2::text, $3::text), 0))`,
		tx.Tenant, tx.Who.User, o.Key).Scan(&free)
	if err != nil {
		return nil, false, fmt.Errorf("lock idempotency key: %w", err)
	}
	if !free {
		return nil, false, ErrKeyBusy
	}
	var request []byte
	err = tx.QueryRow(ctx, `
		select request, answer from idempotency_keys where tenant_id = $1 and user_id = $2 and key = $3`,
		tx.Tenant, tx.Who.User, o.Key).Scan(&request, &answer)
	switch {
	case err == nil && !bytes.Equal(request, o.Request):
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
		tx.Tenant, tx.Who.User, o.Key, o.Request, answer)
	if err != nil {
		return nil, false, fmt.Errorf("keep answer: %w", err)
	}
	return answer, false, nil
}

// Answered reports whether a request under the user's key was answered before.
func (tx Tx) Answered(ctx context.Context, o Once) (yes bool, err error) {
	err = tx.QueryRow(ctx, `
		select exists (select from idempotency_keys where tenant_id = $1 and user_id = $2 and key = $3)`,
		tx.Tenant, tx.Who.User, o.Key).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look for idempotency key: %w", err)
	}
	return yes, nil
}

// ForgetAnswers deletes those that are older than [KeepAnswers] and returns how many there were. It needs an operator's
// role.
func (db *DB) ForgetAnswers(ctx context.Context) (int64, error) {
	tag, err := db.pool.Exec(ctx, `delete from idempotency_keys where created_at < now() - $1::interval`, KeepAnswers)
	if err != nil {
		return 0, fmt.Errorf("forget answers: %w", err)
	}
	return tag.RowsAffected(), nil
}
