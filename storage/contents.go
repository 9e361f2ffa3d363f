package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Content says where an upload's bytes are. Received counts only bytes that are durable in S3, in
// order, without holes: whole parts, then one tail shorter than a part.
type Content struct {
	Received    int64   `db:"received"`     // the tus offset, bytes
	HashState   []byte  `db:"hash_state"`   // SHA-256 of those bytes, as encoding.BinaryMarshaler saves it
	ObjectKey   *string `db:"object_key"`   // where the whole object is, or is being put together
	MultipartID *string `db:"multipart_id"` // the S3 multipart upload, once there is one
	TailKey     *string `db:"tail_key"`     // the object that holds the tail
	TailSize    int64   `db:"tail_size"`    // bytes
	Stored      bool    `db:"stored"`       // the object exists, whole
}

// A Part is one part of an S3 multipart upload.
type Part struct {
	Number int32  `db:"number"`
	Size   int64  `db:"size"` // bytes
	ETag   string `db:"etag"`
}

// Content returns where the upload's bytes are, or [ErrNotFound].
func (tx Tx) Content(ctx context.Context, id uuid.UUID) (Content, error) {
	rows, err := tx.Query(ctx, `
		select received, hash_state, object_key, multipart_id, tail_key, tail_size, stored
		from contents where tenant_id = $1 and upload_id = $2`, tx.Tenant, id)
	if err != nil {
		return Content{}, fmt.Errorf("read content: %w", err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Content])
	if err != nil {
		return Content{}, fmt.Errorf("read content: %w", notFound(err))
	}
	return c, nil
}

// Parts returns the upload's committed parts in order.
func (tx Tx) Parts(ctx context.Context, id uuid.UUID) ([]Part, error) {
	rows, err := tx.Query(ctx, `
		select number, size, etag from parts where tenant_id = $1 and upload_id = $2 order by number`, tx.Tenant, id)
	if err != nil {
		return nil, fmt.Errorf("list parts: %w", err)
	}
	ps, err := pgx.CollectRows(rows, pgx.RowToStructByName[Part])
	if err != nil {
		return nil, fmt.Errorf("list parts: %w", err)
	}
	return ps, nil
}

// heldLease is the fence check that each change to a content makes in its own statement: no row when the
// lease with this fence is gone. FOR SHARE makes a take-over wait for this commit, and this commit see a
// take-over.
const heldLease = `held as (
	select 1 from upload_locks l where l.tenant_id = $1 and l.upload_id = $2 and l.fence = $3 for share)`

// ReservePart hands out the next part number of the multipart upload, which it records too, with the key
// that the upload was begun under. A number is never handed out twice, so a late UploadPart of a writer that lost its lease cannot replace a part
// that counts. Without the lease it returns [ErrFenced].
func (tx Tx) ReservePart(ctx context.Context, id uuid.UUID, fence int64, multipartID, key string) (number int32, err error) {
	err = tx.QueryRow(ctx, `
		with `+heldLease+`
		update contents set multipart_id = $4, object_key = $5, next_part = next_part + 1 from held
		where tenant_id = $1 and upload_id = $2 and coalesce(multipart_id, $4) = $4 and not stored
		returning next_part - 1`, tx.Tenant, id, fence, multipartID, key).Scan(&number)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, ErrFenced
	}
	if err != nil {
		return 0, fmt.Errorf("reserve part: %w", err)
	}
	return number, nil
}

// SaveContent moves the upload's offset, hash and tail from from to to, provided that the lease with this
// fence still stands and nobody has written since from was read; otherwise it returns [ErrFenced].
func (tx Tx) SaveContent(ctx context.Context, id uuid.UUID, fence int64, from, to Content) error {
	tag, err := tx.Exec(ctx, `
		with `+heldLease+`
		update contents set received = $5, hash_state = $6, tail_key = $7, tail_size = $8, object_key = $9, stored = $10
		from held
		where tenant_id = $1 and upload_id = $2 and received = $4 and not stored`,
		tx.Tenant, id, fence, from.Received, to.Received, to.HashState, to.TailKey, to.TailSize,
		to.ObjectKey, to.Stored)
	if err != nil {
		return fmt.Errorf("save content: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrFenced
	}
	if from.Received == 0 && to.Received > 0 {
		return tx.markUploading(ctx, id)
	}
	return nil
}

// AddPart records a part that S3 holds. It goes in the transaction that moves the offset over it.
func (tx Tx) AddPart(ctx context.Context, id uuid.UUID, p Part) error {
	_, err := tx.Exec(ctx, `
		insert into parts (tenant_id, upload_id, number, size, etag) values ($1, $2, $3, $4, $5)`,
		tx.Tenant, id, p.Number, p.Size, p.ETag)
	if err != nil {
		return fmt.Errorf("record part %d: %w", p.Number, err)
	}
	return nil
}

func (tx Tx) markUploading(ctx context.Context, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		update uploads set status = 'uploading', updated_at = now()
		where tenant_id = $1 and id = $2 and status = 'pending'`, tx.Tenant, id)
	if err != nil {
		return fmt.Errorf("mark uploading: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return tx.Append(ctx, id, "uploading", nil)
}
