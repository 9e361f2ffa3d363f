package hooks

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Why content is refused. A [tenant.Refusal] wraps one of them.
var (
	ErrContentNotReady = errors.New("upload is not completed yet")
	ErrNoContent       = errors.New("upload has no content to download")
)

// Content is an object that its reader may download.
type Content struct {
	Upload storage.Upload
	Keys   object.Keys
	Key    string
	Type   string    // media type as detected; "" if unknown
	Size   int64     // bytes
	Until  time.Time // of a thumbnail: until when its entry in the audit log covers what is given out
}

const outcomeInfected = "infected"

// Contents gives content out. Only completed uploads, which are scanned and clean, have content: any other is a
// [*tenant.Refusal]. The access is audited in the transaction that reads the rows.
type Contents struct {
	DB    *storage.DB
	shown shown
}

// Original finds the content of an upload. Each call is audited.
func (c *Contents) Original(ctx context.Context, upload uuid.UUID) (Content, error) {
	return c.read(ctx, upload, storage.AuditUploadContent, func(ctx context.Context, tx storage.Tx, found *Content) error {
		if found.Upload.ObjectKey == nil {
			return storage.ErrNotFound
		}
		found.Key, found.Size = *found.Upload.ObjectKey, found.Upload.Size
		if found.Upload.DetectedType != nil {
			found.Type = *found.Upload.DetectedType
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadContent, Subject: upload.String()})
	})
}

// Thumbnail finds the thumbnail of that size in pixels, or returns [storage.ErrNotFound]. One entry in the audit log covers all
// thumbnails of an upload for a user for [ThumbnailsCovered].
func (c *Contents) Thumbnail(ctx context.Context, upload uuid.UUID, size int) (Content, error) {
	who, err := tenant.From(ctx)
	if err != nil {
		return Content{}, err
	}
	viewer, now := viewerOf(who, upload), time.Now()
	until, covered := c.shown.until(viewer, now)
	found, err := c.read(ctx, upload, storage.AuditUploadThumbnails, func(ctx context.Context, tx storage.Tx, found *Content) error {
		ds, err := tx.Thumbnails(ctx, upload)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(ds, func(d storage.Thumbnail) bool { return d.Size == size })
		if i < 0 {
			return storage.ErrNotFound
		}
		found.Key, found.Type, found.Size, found.Until = ds[i].ObjectKey, ds[i].ContentType, ds[i].Bytes, until
		if covered {
			return nil
		}
		return tx.Audit(ctx, storage.Audit{
			Action: storage.AuditUploadThumbnails, Subject: upload.String(), Detail: map[string]any{"until": until.UTC()},
		})
	})
	if err == nil && !covered {
		c.shown.cover(viewer, until, now)
	}
	return found, err
}

// read finds content by find, which audits that it is given out.
func (c *Contents) read(ctx context.Context, upload uuid.UUID, action string, find func(context.Context, storage.Tx, *Content) error) (found Content, err error) {
	var refusal error
	err = c.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(ctx, upload)
		if err != nil {
			return err
		}
		found = Content{Upload: u, Keys: object.Keys{Tenant: tx.Tenant, Project: u.Project, Upload: u.ID}}
		if refusal = refuseContent(u); refusal == nil {
			return find(ctx, tx, &found)
		}
		if isInfected(u) { // an attempt to download an infected file
			return tx.Audit(ctx, storage.Audit{Action: action, Subject: upload.String(), Outcome: outcomeInfected})
		}
		return nil
	})
	return found, errors.Join(err, refusal)
}

func isInfected(u storage.Upload) bool {
	return u.FailureReason != nil && *u.FailureReason == storage.ReasonInfected
}

// refuseContent says why the content of u cannot be downloaded; nil if it can.
func refuseContent(u storage.Upload) error {
	switch {
	case u.Status == storage.Completed:
		return nil
	case isInfected(u):
		return tenant.Refuse(ErrNoContent, "The upload is infected, and is never given out. Clean the original, and send it as a new upload.")
	case u.Kind == storage.Partial:
		return tenant.Refuse(ErrNoContent, "The upload is a part of another one. Ask for the content of that.")
	case u.Status == storage.Failed:
		return tenant.Refuse(ErrNoContent, "The upload has failed: its status tells why. Send the file as a new upload.")
	case u.Status == storage.Pending || u.Status == storage.Uploading:
		return tenant.Refuse(ErrContentNotReady, "The upload is %s: send the rest of it first.", u.Status)
	case u.Status == storage.Uploaded || u.Status == storage.Processing:
		return tenant.Refuse(ErrContentNotReady, "The upload is %s. Ask again once it has been scanned and is completed.", u.Status)
	}
	return tenant.Refuse(ErrNoContent, "The upload is %s. Send the file as a new upload.", u.Status)
}
