package resource

import (
	"context"
	"encoding/hex"
	"log/slog"
	"slices"

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
	// Sign returns the signature of a user's link to a thumbnail.
	Sign func(who tenant.Identity, project string, upload uuid.UUID, size int) string
	Log  *slog.Logger
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

// Uploads is [Reader.Unlinked] with links to thumbnails for the user that ctx acts as.
func (r *Reader) Uploads(ctx context.Context, read func(context.Context, storage.Tx) ([]storage.Upload, error)) (rows []storage.Upload, items []Upload, err error) {
	who, err := tenant.From(ctx)
	if err != nil {
		return nil, nil, err
	}
	rows, items, err = r.Unlinked(ctx, read)
	for i := range items {
		items[i] = r.Linked(items[i], who)
	}
	return rows, items, err
}

// Linked returns u with the user's own links to its thumbnails.
func (r *Reader) Linked(u Upload, who tenant.Identity) Upload {
	u.Thumbnails = slices.Clone(u.Thumbnails)
	for i, t := range u.Thumbnails {
		u.Thumbnails[i].URL = thumbnailPath(u.ID, t.Size) + "?" + LinkParameter + "=" + r.Sign(who, u.Project, u.ID, t.Size)
	}
	return u
}

// Unlinked returns the rows that read returns, with the JSON representation of each, whose thumbnails have addresses that need
// a token. It reads the thumbnails in the same transaction.
func (r *Reader) Unlinked(ctx context.Context, read func(context.Context, storage.Tx) ([]storage.Upload, error)) (rows []storage.Upload, items []Upload, err error) {
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
	who, err := tenant.From(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i, u := range rows {
		items[i] = r.describe(u)
		r.addThumbnails(ctx, &items[i], object.Keys{Tenant: who.Tenant, Project: u.Project, Upload: u.ID}, drawn[u.ID])
	}
	return rows, items, nil
}

// isGivenOut reports whether the upload's content may be linked: it was scanned and found clean, and is not deleted.
func isGivenOut(u storage.Upload) bool { return u.Status == storage.Completed && u.DeletedAt == nil }

func (r *Reader) describe(u storage.Upload) Upload {
	j := Upload{
		ID: u.ID, Status: u.Status, Offset: u.Received, Filename: storage.Shown(u.Filename), Type: u.DetectedType,
		Project: u.Project, Batch: u.Batch, BatchID: u.BatchID, ClientID: u.ClientID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
		UploadedAt: u.UploadedAt, CompletedAt: u.CompletedAt, DeletedAt: u.DeletedAt, PurgeAt: u.PurgeAt,
		Failure: FailureOf(u), Thumbnails: []Thumbnail{}, Facts: factsOf(u.Facts), Scan: ScanOf(u),
		TypeMismatch: u.TypeMismatch, Partial: u.Partial, NoThumbnail: u.NoThumbnail, Document: u.Document,
	}
	j.Title = storage.Shown(u.Title)
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
	if isGivenOut(u) {
		content := ContentPath(u.ID)
		j.ContentURL, j.Placeholder = &content, u.Placeholder // which shows the content, too
	}
	return j
}

// addThumbnails adds the thumbnails of an upload. One whose key is not the upload's own is left out.
func (r *Reader) addThumbnails(ctx context.Context, j *Upload, keys object.Keys, ds []storage.Thumbnail) {
	for _, d := range ds {
		if owner, ok := object.ParseKey(d.ObjectKey); !ok || owner != keys {
			r.Log.ErrorContext(ctx, "a row names an object of another upload", slog.String("upload_id", j.ID.String()))
			continue
		}
		j.Thumbnails = append(j.Thumbnails, Thumbnail{
			Size: d.Size, Width: d.WidthPx, Height: d.HeightPx, Bytes: d.Bytes, Type: d.ContentType, URL: thumbnailPath(j.ID, d.Size),
		})
	}
}
