package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// A Content says where an upload's bytes are. Received counts durable bytes, in order and without holes: parts in S3, then
// the tail in Postgres, which is too small for a part.
type Content struct {
	Received    int64   `db:"received"`     // the tus offset, bytes
	HashState   []byte  `db:"hash_state"`   // SHA-256 of those bytes, as encoding.BinaryMarshaler saves it
	ObjectKey   *string `db:"object_key"`   // of the whole object, or of the one that the multipart upload will complete
	MultipartID *string `db:"multipart_id"` // the S3 multipart upload, once there is one
	NextPart    int32   `db:"next_part"`    // number of the next part
	TailSize    int64   `db:"tail_size"`    // bytes
	Stored      bool    `db:"stored"`       // the whole object exists
}

// A Part is one part of an S3 multipart upload.
type Part struct {
	Number   int32  `db:"number"`
	Size     int64  `db:"size"` // bytes
	ETag     string `db:"etag"`
	Checksum string `db:"checksum"` // CRC32C in Base64, as S3 compared it
}

// ReadContent stores an upload and where its bytes are, once the transaction's next answer is read ([Later]), which is
// [ErrNotFound] if the tenant does not have the upload.
func ReadContent(tx Tx, id uuid.UUID, u *Upload, c *Content) {
	ReadLater(tx, "read upload", intoStruct(u), SelectUpload+` where u.tenant_id = $1 and u.id = $2`, tx.Tenant, id)
	ReadLater(tx, "read content", intoStruct(c), `
		select received, hash_state, object_key, multipart_id, next_part, tail_size, stored
		from contents where tenant_id = $1 and upload_id = $2`, tx.Tenant, id)
}

func intoStruct[T any](to *T) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*to, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
		return OrNotFound(err)
	}
}

// Contents returns where the bytes of these uploads are, by upload.
func (tx Tx) Contents(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Content, error) {
	type row struct {
		UploadID uuid.UUID `db:"upload_id"`
		Content
	}
	rows, err := tx.Query(ctx, `
		select upload_id, received, hash_state, object_key, multipart_id, next_part, tail_size, stored
		from contents where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, ids)
	all, err := Collect[row]("read contents", rows, err)
	if err != nil {
		return nil, err
	}
	byID := make(map[uuid.UUID]Content, len(all))
	for _, r := range all {
		byID[r.UploadID] = r.Content
	}
	return byID, nil
}

// Parts returns the upload's committed parts in order.
func (tx Tx) Parts(ctx context.Context, id uuid.UUID) ([]Part, error) {
	rows, err := tx.Query(ctx, `
		select number, size, etag, checksum from parts where tenant_id = $1 and upload_id = $2 order by number`, tx.Tenant, id)
	return Collect[Part]("list parts", rows, err)
}

// heldLease is the fence check that each change to a content makes in its own statement: it has no row if the lease with
// this fence is gone. FOR SHARE makes a takeover wait for this commit, and makes this statement see a takeover.
const heldLease = `held as (
	select 1 from upload_leases l where l.tenant_id = $1 and l.upload_id = $2 and l.fence = $3 for share)`

// ReservePart returns the next part number and records the multipart upload and the key of its object. It never returns a
// number twice, so a late UploadPart of a writer that lost its lease cannot replace a committed part. Without the lease it
// returns [ErrFenced].
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

// RestartParts forgets the parts of a final upload, and its multipart upload, so that it begins anew. Without the lease it
// returns [ErrFenced].
func RestartParts(ctx context.Context, tx Tx, id uuid.UUID, fence int64) error {
	tag, err := tx.Exec(ctx, `
		with `+heldLease+`, forgotten as (delete from parts p using held where p.tenant_id = $1 and p.upload_id = $2)
		update contents c set received = 0, hash_state = null, object_key = null, multipart_id = null, next_part = 1
		from held, uploads u
		where c.tenant_id = $1 and c.upload_id = $2 and u.tenant_id = $1 and u.id = $2 and u.kind = 'final' and not c.stored`,
		tx.Tenant, id, fence)
	switch {
	case err != nil:
		return fmt.Errorf("restart parts: %w", err)
	case tag.RowsAffected() == 0:
		return ErrFenced
	}
	return nil
}

// A Progress moves an upload's offset over bytes that are durable now.
type Progress struct {
	From, To  int64  // offsets, bytes; equal if only the object was completed
	HashState []byte // of all bytes up to To
	TailSize  int64  // bytes of the tail afterwards
	HadTail   bool   // there was a tail before, which is deleted if TailSize is 0
	Part      *Part  // a part of the former tail and the bytes from From; nil for none
	Object    string // key of the object, if it is complete now
}

// Advance moves the upload's offset if the lease with this fence is still held and the offset is still From; otherwise it
// returns [ErrFenced]. [Tx.AppendTail] stores bytes of the tail in the same transaction.
func (tx Tx) Advance(ctx context.Context, id uuid.UUID, fence int64, p Progress) error {
	var begun int
	Later(tx, "save offset", `
		with `+heldLease+`, moved as (
			update contents set received = $5, hash_state = $6, tail_size = $7, stored = $8 <> '',
				object_key = coalesce(nullif($8, ''), object_key), touched_at = now()
			from held
			where tenant_id = $1 and upload_id = $2 and received = $4 and not stored
			returning upload_id
		), begun as (
			update uploads u set `+MoveBegin.to()+` from moved
			where u.tenant_id = $1 and u.id = $2 and `+MoveBegin.from()+` and $4::bigint = 0 and $5::bigint > 0
			returning u.id
		)
		select (select count(*) from moved), (select count(*) from begun)`,
		tx.Tenant, id, fence, p.From, p.To, p.HashState, p.TailSize, p.Object).Decide(func(rows pgx.Rows) error {
		var moved int
		err := Into(&moved, &begun)(rows)
		if err == nil && moved == 0 {
			err = ErrFenced
		}
		return err
	})
	tx.progressed(id)
	if p.Part != nil {
		tx.addPart(id, *p.Part)
	}
	if p.HadTail && p.TailSize == 0 {
		tx.dropTails([]uuid.UUID{id})
	}
	if p.Object != "" { // it is uploaded next, without having been uploading
		return nil
	}
	if err := tx.pipeline.flush(ctx); err != nil {
		return err
	}
	if begun > 0 {
		tx.follow(ctx, MoveBegin, []uuid.UUID{id}, []Entry{{Offset: &p.To}})
	}
	return nil
}

// addPart records a part that is in S3.
func (tx Tx) addPart(id uuid.UUID, p Part) {
	Later(tx, fmt.Sprintf("record part %d", p.Number), `
		insert into parts (tenant_id, upload_id, number, size, etag, checksum) values ($1, $2, $3, $4, $5, $6)`,
		tx.Tenant, id, p.Number, p.Size, p.ETag, p.Checksum)
}

// AppendTail stores bytes that are too few for a part; start is the offset of the first.
func (tx Tx) AppendTail(ctx context.Context, id uuid.UUID, start int64, data []byte) error {
	_, err := Exec(ctx, tx, "append to tail", `
		insert into tails (tenant_id, upload_id, start, data) values ($1, $2, $3, $4)`, tx.Tenant, id, start, data)
	return err
}

// Tail calls do with the bytes of the tail in order. They are valid until do returns.
func (tx Tx) Tail(ctx context.Context, id uuid.UUID, do func([]byte) error) error {
	rows, err := tx.Query(ctx, `
		select data from tails where tenant_id = $1 and upload_id = $2 order by start`, tx.Tenant, id)
	if err != nil {
		return fmt.Errorf("read tail: %w", err)
	}
	var data pgtype.DriverBytes // pgx's own buffer, without a copy
	_, err = pgx.ForEachRow(rows, []any{&data}, func() error { return do(data) })
	if err != nil {
		return fmt.Errorf("read tail: %w", err)
	}
	return nil
}

// dropTails deletes the tails of uploads that need them no more.
func (tx Tx) dropTails(ids []uuid.UUID) {
	Later(tx, "drop tails", `delete from tails where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, ids)
}
