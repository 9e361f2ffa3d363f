package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// A Thumbnail is a small image drawn from an upload.
type Thumbnail struct {
	UploadID    uuid.UUID `db:"upload_id"`
	Size        int       `db:"size"` // of the square that it fits into, pixels
	WidthPx     int       `db:"width_px"`
	HeightPx    int       `db:"height_px"`
	Bytes       int64     `db:"bytes"`
	ContentType string    `db:"content_type"`
	ObjectKey   string    `db:"object_key"`
}

// Results are those of processing an upload.
type Results struct {
	DetectedType string
	TypeMismatch bool // the content is of another kind than its client declared
	Facts        Facts
	Document     Document
	Tags         Tags
	Drawn        Drawn
	Thumbnails   []Thumbnail
}

// Complete completes the upload with its results. For an upload that is not being processed it returns [ErrWrongStatus].
func (tx Tx) Complete(ctx context.Context, id uuid.UUID, r Results) error {
	names, args := columns(r.Facts, r.Document, r.Drawn)
	set := "completed_at = now(), detected_type = $3, type_mismatch = $4"
	for i, name := range names {
		set += fmt.Sprintf(", %s = $%d", name, i+5)
	}
	return tx.Move(ctx, id, Transition{
		Move: MoveComplete, Set: set, Args: append([]any{r.DetectedType, r.TypeMismatch}, args...),
		Detail: map[string]any{"thumbnails": len(r.Thumbnails)},
		Also: func([]Moved) error {
			for _, d := range r.Thumbnails {
				if err := tx.putThumbnail(ctx, id, d); err != nil {
					return err
				}
			}
			return tx.putTags(ctx, id, r.Tags)
		},
	})
}

func (tx Tx) putThumbnail(ctx context.Context, id uuid.UUID, d Thumbnail) error {
	_, err := Exec(ctx, tx, fmt.Sprintf("record thumbnail %d", d.Size), `
		insert into thumbnails (tenant_id, upload_id, size, width_px, height_px, bytes, content_type, object_key)
		values ($1, $2, $3, $4, $5, $6, $7, $8)
		on conflict (tenant_id, upload_id, size) do update set width_px = excluded.width_px,
			height_px = excluded.height_px, bytes = excluded.bytes, content_type = excluded.content_type,
			object_key = excluded.object_key`,
		tx.Tenant, id, d.Size, d.WidthPx, d.HeightPx, d.Bytes, d.ContentType, d.ObjectKey)
	return err
}

// Thumbnails returns those of the uploads, smallest first.
func (tx Tx) Thumbnails(ctx context.Context, ids ...uuid.UUID) ([]Thumbnail, error) {
	rows, err := tx.Query(ctx, `
		select upload_id, size, width_px, height_px, bytes, content_type, object_key from thumbnails
		where tenant_id = $1 and upload_id = any($2) order by upload_id, size`, tx.Tenant, ids)
	return Collect[Thumbnail]("list thumbnails", rows, err)
}
