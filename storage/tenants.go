package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrTooLarge says that the tenant may not have an upload of this size.
var ErrTooLarge = errors.New("upload is larger than its tenant may have any")

// warnings are the shares of a quota, in percent, at which its tenant is warned. The detail of [AnnounceQuotaWarning] has
// percent, charged_bytes and quota_bytes.
var warnings = [...]int64{80, 95}

// A charge is what the creation of uploads did to a tenant's quota.
type charge struct {
	bytes   int64 // that were added
	charged int64 // with them
	quota   int64
}

// warn announces the warnings that the charge made due. Charges of one tenant wait for each other's row lock and so
// follow each other without gaps: each crossing is seen by exactly one.
func (tx Tx) warn(ctx context.Context, c charge) error {
	for _, percent := range warnings {
		due := c.quota/100*percent + c.quota%100*percent/100
		if c.charged < due || c.charged-c.bytes >= due {
			continue
		}
		err := tx.Announce(ctx, Announcement{Type: AnnounceQuotaWarning, Detail: map[string]any{
			"percent": percent, "charged_bytes": c.charged, "quota_bytes": c.quota,
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// A Tenant is a customer of the installation and what it may do. Sizes are bytes.
type Tenant struct {
	ID             uuid.UUID `db:"id"`
	Name           string    `db:"name"`
	QuotaBytes     int64     `db:"quota_bytes"`
	ChargedBytes   int64     `db:"charged_bytes"`    // of its quota, by the uploads that it keeps and has begun
	MaxUploadBytes *int64    `db:"max_upload_bytes"` // of one upload; nil for the installation's
	MaxUploads     *int      `db:"max_uploads"`      // that send to one server at the same time; nil for the installation's
	// Since when it takes no uploads, because all that it has is being removed; nil if it is not.
	ErasingAt *time.Time `db:"erasing_at"`
}

// Remaining is what the quota has left, in bytes, and never negative: a quota may be lowered below what is charged.
func (t Tenant) Remaining() int64 { return max(t.QuotaBytes-t.ChargedBytes, 0) }

// MaxUpload is how many bytes an upload may have where the installation allows most.
func (t Tenant) MaxUpload(most int64) int64 {
	if t.MaxUploadBytes == nil {
		return most
	}
	return min(most, *t.MaxUploadBytes)
}

const selectTenant = `select id, name, quota_bytes, charged_bytes, max_upload_bytes, max_uploads, erasing_at from tenants `

// Account returns the tenant that the transaction acts for, or [ErrNotFound] for one that a token names but that
// never was.
func (tx Tx) Account(ctx context.Context) (Tenant, error) {
	rows, err := tx.Query(ctx, selectTenant+`where id = $1`, tx.Tenant)
	if err != nil {
		return Tenant{}, fmt.Errorf("read tenant: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Tenant])
	if err != nil {
		return Tenant{}, fmt.Errorf("read tenant: %w", OrNotFound(err))
	}
	return t, nil
}

// Tenants returns them all, by name. It needs an operator's role.
func (db *DB) Tenants(ctx context.Context) ([]Tenant, error) {
	rows, err := db.pool.Query(ctx, selectTenant+`order by name`)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[Tenant])
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return all, nil
}

// A TenantChange is what becomes different of a tenant. Nil leaves what is; 0 of a maximum gives the
// installation's back.
type TenantChange struct {
	QuotaBytes     *int64
	MaxUploadBytes *int64
	MaxUploads     *int
}

// ChangeTenant changes the tenant named and returns what it is then, or [ErrNotFound]. A quota may be less than what
// is charged: then nothing can be begun, and nothing that is there is lost. It needs an operator's role.
func (db *DB) ChangeTenant(ctx context.Context, name string, c TenantChange) (Tenant, error) {
	rows, err := db.pool.Query(ctx, `
		update tenants set
			quota_bytes = coalesce($2, quota_bytes),
			max_upload_bytes = case when $3::bigint is null then max_upload_bytes else nullif($3, 0) end,
			max_uploads = case when $4::integer is null then max_uploads else nullif($4, 0) end
		where name = $1
		returning id, name, quota_bytes, charged_bytes, max_upload_bytes, max_uploads, erasing_at`,
		name, c.QuotaBytes, c.MaxUploadBytes, c.MaxUploads)
	if err != nil {
		return Tenant{}, fmt.Errorf("change tenant: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Tenant])
	if err != nil {
		return Tenant{}, fmt.Errorf("change tenant: %w", OrNotFound(err))
	}
	return t, nil
}

// CreateTenant adds a tenant with a quota in bytes and returns its id; created is false when a tenant
// of that name was there before, whose quota then stays. It needs an operator's role.
func (db *DB) CreateTenant(ctx context.Context, name string, quota int64) (id uuid.UUID, created bool, err error) {
	id, err = uuid.NewV7()
	if err != nil {
		return uuid.Nil, false, err
	}
	tag, err := db.pool.Exec(ctx, `
		insert into tenants (id, name, quota_bytes) values ($1, $2, $3)
		on conflict (name) do nothing`, id, name, quota)
	if err != nil {
		return uuid.Nil, false, fmt.Errorf("create tenant: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return id, true, nil
	}
	id, err = db.TenantByName(ctx, name)
	return id, false, err
}

// TenantByName returns the id of the tenant named, or [ErrNotFound]. It needs an operator's role.
func (db *DB) TenantByName(ctx context.Context, name string) (uuid.UUID, error) {
	var id uuid.UUID
	err := db.pool.QueryRow(ctx, `select id from tenants where name = $1`, name).Scan(&id)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find tenant by name: %w", OrNotFound(err))
	}
	return id, nil
}

// LockTenant goes before the lock of an upload whose charge is to change, as in CreateUpload: a creation under the
// same client id waits for that upload's row while it holds the tenant's.
func (tx Tx) LockTenant(ctx context.Context) error {
	if _, err := tx.Exec(ctx, `select from tenants where id = $1 for no key update`, tx.Tenant); err != nil {
		return fmt.Errorf("lock tenant: %w", err)
	}
	return nil
}

// Refund gives bytes back to the tenant's quota.
func (tx Tx) Refund(ctx context.Context, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		update tenants set charged_bytes = charged_bytes - $2 where id = $1`, tx.Tenant, bytes)
	if err != nil {
		return fmt.Errorf("refund quota: %w", err)
	}
	return nil
}
