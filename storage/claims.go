package storage

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Claim is what the rows of an upload own in S3.
type Claim struct {
	UploadRef
	Project     string    `db:"project"`
	Status      Status    `db:"status"`
	UpdatedAt   time.Time `db:"updated_at"`
	ObjectKey   *string   `db:"object_key"`   // of the whole object, once it is safe
	ContentKey  *string   `db:"content_key"`  // where it is being put together
	MultipartID *string   `db:"multipart_id"` // by this multipart upload
	Thumbnails  []string  `db:"thumbnails"`   // keys of the pictures
	Held        bool      `db:"held"`         // by a living lease
	Deleted     bool      `db:"deleted"`      // it keeps what it has until that is removed
}

// Owns reports whether the rows name an object under the key. What an upload that was given up had begun is
// nobody's, and so is that of a partial upload whose bytes are another's.
func (c Claim) Owns(key string) bool {
	switch c.Status {
	case Expired, Cancelled, Concatenated:
		return false
	}
	return c.ObjectKey != nil && *c.ObjectKey == key ||
		c.Status.Receiving() && c.ContentKey != nil && *c.ContentKey == key ||
		slices.Contains(c.Thumbnails, key)
}

// OwnsMultipart reports whether the upload is still being put together by the multipart upload.
func (c Claim) OwnsMultipart(id string) bool {
	return c.Status.Receiving() && c.MultipartID != nil && *c.MultipartID == id
}

const selectClaim = `
	select u.tenant_id, u.id, u.project, u.status, u.updated_at, u.object_key, c.object_key content_key, c.multipart_id,
		array(select d.object_key from thumbnails d where d.tenant_id = u.tenant_id and d.upload_id = u.id) thumbnails,
		` + LeaseHeld + ` held, u.deleted_at is not null deleted
	from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id `

// Claims yields those of all uploads in the order of their keys in S3: by tenant, project and id. It needs an
// operator's role.
func (db *DB) Claims(ctx context.Context) iter.Seq2[Claim, error] {
	return Paged(func(after Claim) ([]Claim, error) {
		rows, err := db.pool.Query(ctx, selectClaim+`
			where (u.tenant_id, (u.project || '/') collate "C", u.id) > ($1, ($2::text || '/') collate "C", $3)
			order by u.tenant_id, (u.project || '/') collate "C", u.id limit $4`,
			after.Tenant, after.Project, after.Upload, PageSize)
		return claims(rows, err)
	})
}

// ClaimsOf returns the claims of the uploads named, of any tenant; it has none for one that does not exist. It
// needs an operator's role.
func (db *DB) ClaimsOf(ctx context.Context, refs ...UploadRef) (map[UploadRef]Claim, error) {
	tenants, uploads := make([]uuid.UUID, len(refs)), make([]uuid.UUID, len(refs))
	for i, r := range refs {
		tenants[i], uploads[i] = r.Tenant, r.Upload
	}
	rows, err := db.pool.Query(ctx, selectClaim+`
		where (u.tenant_id, u.id) in (select * from unnest($1::uuid[], $2::uuid[]))`, tenants, uploads)
	found, err := claims(rows, err)
	if err != nil {
		return nil, err
	}
	byRef := make(map[UploadRef]Claim, len(found))
	for _, c := range found {
		byRef[c.UploadRef] = c
	}
	return byRef, nil
}

// Claim returns the upload's, or [ErrNotFound].
func (tx Tx) Claim(ctx context.Context, id uuid.UUID) (Claim, error) {
	rows, err := tx.Query(ctx, selectClaim+`where u.tenant_id = $1 and u.id = $2`, tx.Tenant, id)
	found, err := claims(rows, err)
	if err != nil {
		return Claim{}, err
	}
	if len(found) == 0 {
		return Claim{}, ErrNotFound
	}
	return found[0], nil
}

func claims(rows pgx.Rows, err error) ([]Claim, error) {
	if err != nil {
		return nil, fmt.Errorf("read claims: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Claim])
	if err != nil {
		return nil, fmt.Errorf("read claims: %w", err)
	}
	return found, nil
}
