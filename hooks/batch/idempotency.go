package batch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
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

// madeBy is the SHA-256 of the request with what its token gives access to: an answer may have what another token of the same
// user does not see, or be another person's who has entered the tenant under the same name.
func (k IdempotencyKey) madeBy(who tenant.Identity) []byte {
	projects := "all"
	if who.Projects != nil {
		projects = strings.Join(slices.Sorted(slices.Values(who.Projects)), ",") // names have no comma
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %s %s %s", k.Request, who.OwnTenant(), who.Role, projects))
	return sum[:]
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
	made := k.madeBy(tx.Who)
	var request []byte
	err = tx.QueryRow(ctx, `
		select request, answer from idempotency_keys where tenant_id = $1 and user_id = $2 and key = $3`,
		tx.Tenant, tx.Who.User, k.Key).Scan(&request, &answer)
	switch {
	case err == nil && !bytes.Equal(request, made):
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
		tx.Tenant, tx.Who.User, k.Key, made, answer)
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
