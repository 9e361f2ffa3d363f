package resource

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A Reader reads uploads with their thumbnails. It takes no lease, so it never disturbs a running PATCH.
type Reader struct {
	DB     *storage.DB
	Expiry hooks.Expiry
	Bucket *object.Bucket
	Log    *slog.Logger
}

// Upload reads one upload, or returns [storage.ErrNotFound].
func (r *Reader) Upload(ctx context.Context, id uuid.UUID) (Upload, error) {
	_, items, err := r.Uploads(ctx, func(ctx context.Context, tx storage.Tx) ([]storage.Upload, error) {
		u, err := tx.Upload(ctx, id)
		return []storage.Upload{u}, err
	})
	if err != nil {
		return Upload{}, err
	}
	return items[0], nil
}

// Uploads returns the rows that read returns, with the JSON representation of each. It reads their thumbnails in the same
// transaction.
func (r *Reader) Uploads(ctx context.Context, read func(context.Context, storage.Tx) ([]storage.Upload, error)) (rows []storage.Upload, items []Upload, err error) {
	drawn := make(map[uuid.UUID][]storage.Thumbnail)
	err = r.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if rows, err = read(ctx, tx); err != nil {
			return err
		}
		var ids []uuid.UUID
		for _, u := range rows {
			if isGivenOut(u) {
				ids = append(ids, u.ID)
			}
		}
		if len(ids) == 0 {
			return nil
		}
		ds, err := tx.Thumbnails(ctx, ids...)
		for _, d := range ds {
			drawn[d.UploadID] = append(drawn[d.UploadID], d)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	items = make([]Upload, len(rows))
	for i, u := range rows {
		if items[i], err = r.describe(ctx, u, drawn[u.ID]); err != nil {
			return nil, nil, err
		}
	}
	return rows, items, nil
}

// isGivenOut reports whether the upload's content may be linked: it was scanned and found clean, and is not deleted.
func isGivenOut(u storage.Upload) bool { return u.Status == storage.Completed && u.DeletedAt == nil }

func (r *Reader) describe(ctx context.Context, u storage.Upload, ds []storage.Thumbnail) (Upload, error) {
	j := Upload{
		ID: u.ID, Status: u.Status, Offset: u.Received, Filename: u.Filename, Type: u.DetectedType,
		Project: u.Project, Batch: u.Batch, BatchID: u.BatchID, ClientID: u.ClientID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
		UploadedAt: u.UploadedAt, CompletedAt: u.CompletedAt, DeletedAt: u.DeletedAt, PurgeAt: u.PurgeAt,
		Failure: FailureOf(u), Thumbnails: []Thumbnail{}, Facts: factsOf(u.Facts), Scan: ScanOf(u),
		TypeMismatch: u.TypeMismatch, Partial: u.Partial, NoThumbnail: u.NoThumbnail, Document: u.Document,
	}
	if at, ok := r.Expiry.Of(u); ok {
		j.ExpiresAt = &at
	}
	if !u.SizeDeferred {
		j.Size = &u.Size
	}
	if j.Type == nil {
		j.Type = u.DeclaredType
	}
	if u.SHA256 != nil {
		sum := hex.EncodeToString(u.SHA256)
		j.SHA256 = &sum
	}
	if !isGivenOut(u) {
		return j, nil
	}
	content := ContentPath(u.ID)
	j.ContentURL, j.Placeholder = &content, u.Placeholder // which shows the content, too
	err := r.link(ctx, &j, ds)
	return j, err
}

// link adds the thumbnails of an upload. One whose key is not the upload's own is left out.
func (r *Reader) link(ctx context.Context, j *Upload, ds []storage.Thumbnail) error {
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	keys := object.Keys{Tenant: who.Tenant, Project: j.Project, Upload: j.ID}
	for _, d := range ds {
		url, err := r.Bucket.Link(ctx, keys, d.ObjectKey)
		if errors.Is(err, object.ErrForeignKey) {
			r.Log.ErrorContext(ctx, "a row names an object of another upload", slog.String("upload_id", j.ID.String()), slog.Any("err", err))
			continue
		}
		if err != nil {
			return err
		}
		j.Thumbnails = append(j.Thumbnails, Thumbnail{
			Size: d.Size, Width: d.WidthPx, Height: d.HeightPx, Bytes: d.Bytes, Type: d.ContentType, URL: url,
		})
	}
	return nil
}
