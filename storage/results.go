package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Facts are what a picture tells of itself. A nil field is unknown.
type Facts struct {
	TakenAt      *time.Time `db:"taken_at"`    // only when the camera named its zone, or GPS the time
	TakenLocal   *time.Time `db:"taken_local"` // the camera's wall clock, in UTC for want of a zone
	TakenZone    *string    `db:"taken_zone"`  // how TakenAt was derived: offset, xmp or gps
	Latitude     *float64   `db:"latitude"`    // degrees, WGS 84
	Longitude    *float64   `db:"longitude"`
	AltitudeM    *float64   `db:"altitude_m"`    // metres above sea level
	DirectionDeg *float64   `db:"direction_deg"` // degrees clockwise from north
	CameraMake   *string    `db:"camera_make"`
	CameraModel  *string    `db:"camera_model"`
	Lens         *string    `db:"lens"`
	Software     *string    `db:"software"`
	Orientation  *int16     `db:"orientation"` // EXIF 2.32, tag 274: 1 to 8
	WidthPx      *int32     `db:"width_px"`    // upright
	HeightPx     *int32     `db:"height_px"`
	Pages        *int32     `db:"pages"` // of a document
	Title        *string    `db:"title"` // of a document, in its own words
}

// Pictured says how drawing pictures of an upload went.
type Pictured struct {
	Partial     bool    `db:"partial"`      // the pictures show a part of it: the rest is missing or damaged
	Placeholder *string `db:"placeholder"`  // ThumbHash, base64: what a list shows while pictures load
	NoThumbnail *string `db:"no_thumbnail"` // why there is none (processing/examine lists the reasons); nil if there is one, or its type has none
}

// A Thumbnail is a picture drawn from an upload.
type Thumbnail struct {
	UploadID    uuid.UUID `db:"upload_id"`
	Size        int       `db:"size"` // pixels of the box it was drawn for
	WidthPx     int       `db:"width_px"`
	HeightPx    int       `db:"height_px"`
	Bytes       int64     `db:"bytes"`
	ContentType string    `db:"content_type"`
	ObjectKey   string    `db:"object_key"`
}

// Results are what processing found out about an upload.
type Results struct {
	Scan         *Scan // nil if it was not scanned
	DetectedType string
	TypeMismatch bool // it is not of the kind that its sender said
	Facts        Facts
	Tags         Tags
	Pictured     Pictured
	Thumbnails   []Thumbnail
}

// Complete ends the upload well, with its results. Running it twice changes nothing; an upload that has
// ended otherwise is left as it is, with [ErrWrongStatus].
func (tx Tx) Complete(ctx context.Context, id uuid.UUID, r Results) error {
	f := r.Facts
	return tx.Move(ctx, id, Transition{
		Move: MoveComplete,
		Set: `completed_at = now(), detected_type = $3,
			taken_at = $4, taken_local = $5, taken_zone = $6, latitude = $7, longitude = $8, altitude_m = $9,
			direction_deg = $10, camera_make = $11, camera_model = $12, lens = $13, software = $14,
			orientation = $15, width_px = $16, height_px = $17, pages = $18, title = $19,
			type_mismatch = $20, partial = $21, placeholder = $22, no_thumbnail = $23`,
		Args: []any{
			r.DetectedType, f.TakenAt, f.TakenLocal, f.TakenZone, f.Latitude, f.Longitude, f.AltitudeM,
			f.DirectionDeg, f.CameraMake, f.CameraModel, f.Lens, f.Software, f.Orientation, f.WidthPx, f.HeightPx,
			f.Pages, f.Title, r.TypeMismatch, r.Pictured.Partial, r.Pictured.Placeholder, r.Pictured.NoThumbnail,
		},
		Detail: map[string]any{"thumbnails": len(r.Thumbnails)},
		Also: func([]Moved) error {
			for _, d := range r.Thumbnails {
				if err := tx.putThumbnail(ctx, id, d); err != nil {
					return err
				}
			}
			if err := tx.recordScan(ctx, id, r.Scan); err != nil {
				return err
			}
			if err := tx.putTags(ctx, id, r.Tags); err != nil {
				return err
			}
			return tx.forgetFindings(ctx, id)
		},
	})
}

func (tx Tx) putThumbnail(ctx context.Context, id uuid.UUID, d Thumbnail) error {
	_, err := tx.Exec(ctx, `
		insert into thumbnails (tenant_id, upload_id, size, width_px, height_px, bytes, content_type, object_key)
		values ($1, $2, $3, $4, $5, $6, $7, $8)
		on conflict (tenant_id, upload_id, size) do update set width_px = excluded.width_px,
			height_px = excluded.height_px, bytes = excluded.bytes, content_type = excluded.content_type,
			object_key = excluded.object_key`,
		tx.Tenant, id, d.Size, d.WidthPx, d.HeightPx, d.Bytes, d.ContentType, d.ObjectKey)
	if err != nil {
		return fmt.Errorf("record thumbnail %d: %w", d.Size, err)
	}
	return nil
}

// Thumbnails returns the pictures of the uploads named, smallest first.
func (tx Tx) Thumbnails(ctx context.Context, ids ...uuid.UUID) ([]Thumbnail, error) {
	rows, err := tx.Query(ctx, `
		select upload_id, size, width_px, height_px, bytes, content_type, object_key from thumbnails
		where tenant_id = $1 and upload_id = any($2) order by upload_id, size`, tx.Tenant, ids)
	if err != nil {
		return nil, fmt.Errorf("list thumbnails: %w", err)
	}
	ds, err := pgx.CollectRows(rows, pgx.RowToStructByName[Thumbnail])
	if err != nil {
		return nil, fmt.Errorf("list thumbnails: %w", err)
	}
	return ds, nil
}
