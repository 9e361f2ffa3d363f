package reconcile

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// A claim is what the rows of an upload own in S3.
type claim struct {
	storage.UploadRef
	Project     string         `db:"project"`
	Status      storage.Status `db:"status"`
	UpdatedAt   time.Time      `db:"updated_at"`
	ObjectKey   *string        `db:"object_key"`   // of the whole object, once it is safe
	ContentKey  *string        `db:"content_key"`  // where it is being put together
	MultipartID *string        `db:"multipart_id"` // by this multipart upload
	Thumbnails  []string       `db:"thumbnails"`   // their keys
	Held        bool           `db:"held"`         // by a live process
	Deleted     bool           `db:"deleted"`      // it keeps what it has until that is removed
	Remains     bool           `db:"remains"`      // it has ended, and what it has is removed before it is refunded
}

// owns reports whether the rows name an object under the key. What an upload that was given up had begun is orphaned once its
// quota is refunded, and so is the object of a partial upload whose bytes are another's.
func (c claim) owns(key string) bool {
	if c.Remains {
		return true
	}
	switch c.Status {
	case storage.Expired, storage.Cancelled, storage.Concatenated:
		return false
	}
	return c.ObjectKey != nil && *c.ObjectKey == key ||
		c.Status.Receiving() && c.ContentKey != nil && *c.ContentKey == key ||
		slices.Contains(c.Thumbnails, key)
}

// ownsMultipart reports whether the upload is still being put together by the multipart upload, or charged for it.
func (c claim) ownsMultipart(id string) bool {
	return c.Remains || c.Status.Receiving() && c.MultipartID != nil && *c.MultipartID == id
}

const selectClaim = `
	select u.tenant_id, u.id, u.project, u.status, u.updated_at, u.object_key, c.object_key content_key, c.multipart_id,
		array(select d.object_key from thumbnails d where d.tenant_id = u.tenant_id and d.upload_id = u.id) thumbnails,
		` + storage.LeaseHeld + ` held, u.deleted_at is not null deleted, u.remains
	from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id `

// allClaims yields those of all uploads in the order of their keys in S3: by tenant, project and id.
func allClaims(ctx context.Context, db *storage.DB) iter.Seq2[claim, error] {
	return storage.Paged(func(after claim) ([]claim, error) {
		rows, err := db.Pool().Query(ctx, selectClaim+`
			where (u.tenant_id, (u.project || '/') collate "C", u.id) > ($1, ($2::text || '/') collate "C", $3)
			order by u.tenant_id, (u.project || '/') collate "C", u.id limit $4`,
			after.Tenant, after.Project, after.Upload, storage.PageSize)
		return storage.Collect[claim]("read claims", rows, err)
	})
}

// findClaim returns the claim of an upload of any tenant, or [storage.ErrNotFound] if there is no such upload.
func findClaim(ctx context.Context, db *storage.DB, tenant, upload uuid.UUID) (claim, error) {
	rows, err := db.Pool().Query(ctx, selectClaim+`where u.tenant_id = $1 and u.id = $2`, tenant, upload)
	return storage.CollectOne[claim]("read claim", rows, err)
}

// readClaim returns the claim of an upload as a transaction sees it, or [storage.ErrNotFound].
func readClaim(ctx context.Context, tx storage.Tx, id uuid.UUID) (claim, error) {
	rows, err := tx.Query(ctx, selectClaim+`where u.tenant_id = $1 and u.id = $2`, tx.Tenant, id)
	return storage.CollectOne[claim]("read claim", rows, err)
}
