package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// ErrTooLarge says that the upload is larger than the tenant's limit.
var ErrTooLarge = errors.New("upload is larger than its tenant's limit")

// warnings are the percentages of a quota at which [AnnounceQuotaWarning] is announced. Its detail has percent,
// charged_bytes and quota_bytes.
var warnings = [...]int64{80, 95}

// A charge is what new uploads add to the use of a tenant's quota.
type charge struct {
	bytes   int64 // of the new uploads
	charged int64 // of all uploads
	quota   int64
}

// warn announces the warnings whose percentage the charge has crossed. Charges of a tenant are serialized by its row lock,
// so exactly one charge crosses each percentage.
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

// A Tenant is a customer of the installation, with its limits. Sizes are bytes.
type Tenant struct {
	ID             uuid.UUID `db:"id"`
	Name           string    `db:"name"`
	QuotaBytes     int64     `db:"quota_bytes"`
	ChargedBytes   int64     `db:"charged_bytes"`    // by stored and unfinished uploads
	MaxUploadBytes *int64    `db:"max_upload_bytes"` // of one upload; nil for the installation's
	MaxUploads     *int      `db:"max_uploads"`      // in progress at one server; nil for the installation's
	// Since when its erasure runs and it takes no uploads; nil if there is none.
	ErasingAt *time.Time `db:"erasing_at"`
	// Since when its tokens are refused; nil while they are valid.
	SuspendedAt *time.Time `db:"suspended_at"`
}

// Remaining is what is left of the quota, in bytes. It is never negative, although a quota may be lowered below the charge.
func (t Tenant) Remaining() int64 { return max(t.QuotaBytes-t.ChargedBytes, 0) }

// MaxUpload is how many bytes an upload may have if the installation allows most.
func (t Tenant) MaxUpload(most int64) int64 {
	if t.MaxUploadBytes == nil {
		return most
	}
	return min(most, *t.MaxUploadBytes)
}

const (
	tenantColumns = `id, name, quota_bytes, charged_bytes, max_upload_bytes, max_uploads, erasing_at, suspended_at`
	selectTenant  = `select ` + tenantColumns + ` from tenants `
)

// Account returns the tenant of the transaction, or [ErrNotFound] if a token names a tenant that does not exist.
func (tx Tx) Account(ctx context.Context) (Tenant, error) {
	rows, err := tx.Query(ctx, selectTenant+`where id = $1`, tx.Tenant)
	return CollectOne[Tenant]("read tenant", rows, err)
}

// Tenants returns all tenants, by name. It needs an operator's role.
func (db *DB) Tenants(ctx context.Context) ([]Tenant, error) {
	rows, err := db.pool.Query(ctx, selectTenant+`order by name`)
	return Collect[Tenant]("list tenants", rows, err)
}

// A TenantChange has the new limits of a tenant. Nil changes nothing; a maximum of 0 restores the installation's.
type TenantChange struct {
	QuotaBytes     *int64
	MaxUploadBytes *int64
	MaxUploads     *int
}

// ChangeTenant changes and returns the tenant. A quota may be lower than the charge: then no upload can begin, and no stored
// upload is lost. It needs an operator's role.
func ChangeTenant(ctx context.Context, tx Tx, c TenantChange) (Tenant, error) {
	rows, err := tx.Query(ctx, `
		update tenants set
			quota_bytes = coalesce($2, quota_bytes),
			max_upload_bytes = case when $3::bigint is null then max_upload_bytes else nullif($3, 0) end,
			max_uploads = case when $4::integer is null then max_uploads else nullif($4, 0) end
		where id = $1
		returning `+tenantColumns,
		tx.Tenant, c.QuotaBytes, c.MaxUploadBytes, c.MaxUploads)
	return CollectOne[Tenant]("change tenant", rows, err)
}

// CreateTenant adds a tenant with a quota in bytes and returns its id. If a tenant of that name exists, it returns its id and
// false, and leaves its quota. It needs an operator's role.
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

// TenantByName returns the id of a tenant, or [ErrNotFound]. It needs an operator's role.
func (db *DB) TenantByName(ctx context.Context, name string) (uuid.UUID, error) {
	var id uuid.UUID
	err := db.pool.QueryRow(ctx, `select id from tenants where name = $1`, name).Scan(&id)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find tenant by name: %w", OrNotFound(err))
	}
	return id, nil
}

// LockTenant locks the tenant's row. It comes before the lock of an upload whose charge is to change, as in CreateUpload: a
// creation under the same client id waits for that upload's row while it holds the tenant's.
func (tx Tx) LockTenant(ctx context.Context) error {
	_, err := Exec(ctx, tx, "lock tenant", lockTenant, tx.Tenant)
	return err
}

const lockTenant = `select from tenants where id = $1 for no key update`

// Refund gives bytes back to the tenant's quota.
func (tx Tx) Refund(ctx context.Context, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	_, err := Exec(ctx, tx, "refund quota", `
		update tenants set charged_bytes = charged_bytes - $2 where id = $1`, tx.Tenant, bytes)
	return err
}
