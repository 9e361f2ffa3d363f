package storage

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

	"github.com/tramo/tramo/tenant"
)

// ErrBadTicket says that there is no such ticket: it never was, was used, or is too old.
var ErrBadTicket = errors.New("no such ticket")

// ticketSecret is how many random bytes a ticket has behind its tenant's id.
const ticketSecret = 32

// IssueTicket returns a ticket that stands, once and until it expires, for whom the transaction acts for. It sweeps
// the tenant's tickets that expired unused.
func (tx Tx) IssueTicket(ctx context.Context, ttl time.Duration) (ticket string, expires time.Time, err error) {
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
		insert into event_tickets (tenant_id, hash, expires_at, user_id, role, projects, home_tenant, token_expires_at)
		values ($1, $2, now() + $3, $4, $5, $6, $7, $8) returning expires_at`,
		tx.Tenant, hash[:], ttl, tx.Who.User, tx.Who.Role, tx.Who.Projects, home, tx.Who.Expires).Scan(&expires)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("issue ticket: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), expires, nil
}

// RedeemTicket uses a ticket up and returns whom it stands for, or [ErrBadTicket]. The tenant that the ticket names
// only says where to look: who writes another one into it changes its hash.
func (db *DB) RedeemTicket(ctx context.Context, ticket string) (who tenant.Identity, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil || len(raw) != 16+ticketSecret {
		return who, ErrBadTicket
	}
	owner := uuid.UUID(raw[:16])
	if owner == uuid.Nil {
		return who, ErrBadTicket
	}
	hash := sha256.Sum256(raw)
	ctx = tenant.With(ctx, tenant.Identity{Tenant: owner})
	err = db.InTenant(ctx, func(tx Tx) error {
		var home *uuid.UUID
		var fresh bool
		err := tx.QueryRow(ctx, `
			delete from event_tickets where tenant_id = $1 and hash = $2
			returning user_id, role, projects, home_tenant, token_expires_at, expires_at > now()`, tx.Tenant, hash[:]).
			Scan(&who.User, &who.Role, &who.Projects, &home, &who.Expires, &fresh)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !fresh {
			return ErrBadTicket
		}
		if err != nil {
			return fmt.Errorf("redeem ticket: %w", err)
		}
		if home != nil {
			who.Home = *home
		}
		return nil
	})
	if err != nil {
		return tenant.Identity{}, err
	}
	who.Tenant = owner
	return who, nil
}
