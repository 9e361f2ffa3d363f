package live

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// ticketSecret is how many random bytes a ticket has behind its tenant's id.
const ticketSecret = 32

// IssueTicket returns a ticket that stands, once and until it expires, for the identity that the transaction acts for. It
// deletes the tenant's tickets that expired unused.
func IssueTicket(ctx context.Context, tx storage.Tx, ttl time.Duration) (ticket string, expires time.Time, err error) {
	raw := make([]byte, 16+ticketSecret)
	copy(raw, tx.Tenant[:])
	_, _ = rand.Read(raw[16:]) // never fails
	hash := sha256.Sum256(raw)
	var home *uuid.UUID
	if tx.Who.Home != uuid.Nil {
		home = &tx.Who.Home
	}
	err = tx.QueryRow(ctx, `
		with swept as (delete from event_tickets where tenant_id = $1 and expires_at <= now())
		insert into event_tickets (tenant_id, hash, expires_at, user_id, role, projects, home_tenant, token_expires_at, token_issued_at)
		values ($1, $2, now() + $3, $4, $5, $6, $7, $8, $9) returning expires_at`,
		tx.Tenant, hash[:], ttl, tx.Who.User, tx.Who.Role, tx.Who.Projects, home, tx.Who.Expires, storage.OrNull(tx.Who.Issued)).Scan(&expires)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("issue ticket: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), expires, nil
}

// redeemTicket uses a ticket up and returns the identity that it stands for, or [problem.ErrBadTicket]. The tenant in the
// ticket only says where to look: a ticket with another tenant written into it has another hash.
func redeemTicket(ctx context.Context, db *storage.DB, ticket string) (who tenant.Identity, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil || len(raw) != 16+ticketSecret {
		return who, problem.ErrBadTicket
	}
	owner := uuid.UUID(raw[:16])
	if owner == uuid.Nil {
		return who, problem.ErrBadTicket
	}
	hash := sha256.Sum256(raw)
	ctx = tenant.With(ctx, tenant.Identity{Tenant: owner})
	err = db.InTenant(ctx, func(tx storage.Tx) error {
		var home *uuid.UUID
		var issued *time.Time
		var fresh bool
		err := tx.QueryRow(ctx, `
			delete from event_tickets where tenant_id = $1 and hash = $2
			returning user_id, role, projects, home_tenant, token_expires_at, token_issued_at, expires_at > now()`, tx.Tenant, hash[:]).
			Scan(&who.User, &who.Role, &who.Projects, &home, &who.Expires, &issued, &fresh)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !fresh {
			return problem.ErrBadTicket
		}
		if err != nil {
			return fmt.Errorf("redeem ticket: %w", err)
		}
		if home != nil {
			who.Home = *home
		}
		if issued != nil {
			who.Issued = *issued
		}
		return nil
	})
	if err != nil {
		return tenant.Identity{}, err
	}
	who.Tenant = owner
	return who, nil
}
