package storage

import (
	"context"
	"time"
)

// A Standing says which tokens of a tenant are valid.
type Standing struct {
	Exists    bool `db:"is_there"`
	Suspended bool `db:"suspended"`
	Erasing   bool `db:"erasing"` // its erasure runs, or is done
	Erased    bool `db:"erased"`
	// Revoked has, by user, when the oldest token was issued that is valid; "" is every user.
	Revoked map[string]time.Time `db:"revoked"`
}

// Revokes reports whether a token of the user's that was issued then is revoked. The zero time is that of a token that does
// not say.
func (s Standing) Revokes(user string, issued time.Time) bool {
	return issued.Before(s.Revoked[user]) || issued.Before(s.Revoked[""])
}

// StandingOf reads the standing of the transaction's tenant. A tenant that does not exist has one too.
func StandingOf(ctx context.Context, tx Tx) (Standing, error) {
	rows, err := tx.Query(ctx, `
		select t.id is not null as is_there, t.suspended_at is not null as suspended, t.erasing_at is not null as erasing,
			t.erased_at is not null as erased,
			(select jsonb_object_agg(r.subject, r.issued_before) from revocations r where r.tenant_id = $1) as revoked
		from (select) one left join tenants t on t.id = $1`, tx.Tenant)
	return CollectOne[Standing]("read the standing of a tenant", rows, err)
}

// AnnounceStanding tells all servers, at the commit, that the standing of the tenant has changed. Such a transaction is rare,
// and of programs that end after it, so the notification travels with it.
func AnnounceStanding(ctx context.Context, tx Tx) error {
	_, err := Exec(ctx, tx, "notify of a standing", `select pg_notify('`+changesChannel+`', $1)`, tx.Tenant.String()+" "+standingMark)
	return err
}

// SuspendTenant makes servers refuse the tenant's tokens, or accept them again. It needs an operator's role.
func SuspendTenant(ctx context.Context, tx Tx, suspend bool) error {
	n, err := Exec(ctx, tx, "suspend tenant", `
		update tenants set suspended_at = case when $2 then coalesce(suspended_at, now()) end where id = $1 and erased_at is null`,
		tx.Tenant, suspend)
	switch {
	case err != nil:
		return err
	case n == 0:
		return ErrNotFound
	}
	return AnnounceStanding(ctx, tx)
}

// RevokeTokens makes servers refuse the tokens of the user, or of all users for "", that were issued before a time. An
// earlier revocation stays. It needs an operator's role.
func RevokeTokens(ctx context.Context, tx Tx, user string, before time.Time) error {
	_, err := Exec(ctx, tx, "revoke tokens", `
		insert into revocations (tenant_id, subject, issued_before) values ($1, $2, $3)
		on conflict (tenant_id, subject) do update set issued_before = greatest(revocations.issued_before, excluded.issued_before)`,
		tx.Tenant, user, before)
	if err != nil {
		return err
	}
	return AnnounceStanding(ctx, tx)
}
