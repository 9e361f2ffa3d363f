package hooks

import (
	"context"
	"errors"
	"slices"

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
	Type   string // media type as detected; "" if unknown
}

const outcomeInfected = "infected"

// ReadContent finds the content of an upload, or its thumbnail of that size in pixels (0: the original). Only completed uploads,
// which are scanned and clean, have content: any other is a [*tenant.Refusal], and a missing thumbnail [storage.ErrNotFound].
// The access is audited in the transaction that reads the rows.
func ReadContent(ctx context.Context, db *storage.DB, upload uuid.UUID, thumbnail int) (c Content, err error) {
	var refusal error
	err = db.InTenant(ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(ctx, upload)
		if err != nil {
			return err
		}
		c = Content{Upload: u, Keys: object.Keys{Tenant: tx.Tenant, Project: u.Project, Upload: u.ID}}
		a := storage.Audit{Action: storage.AuditUploadContent, Subject: upload.String(), Detail: map[string]any{"thumbnail": thumbnail}}
		if thumbnail == 0 {
			a.Detail = nil
		}
		switch refusal = refuseContent(u); {
		case refusal != nil && isInfected(u): // an attempt to download an infected file
			a.Outcome = outcomeInfected
		case refusal != nil:
			return nil
		default:
			if err := c.find(ctx, tx, thumbnail); err != nil {
				return err
			}
		}
		return tx.Audit(ctx, a)
	})
	return c, errors.Join(err, refusal)
}

// find completes c.
func (c *Content) find(ctx context.Context, tx storage.Tx, thumbnail int) error {
	if thumbnail == 0 {
		if c.Upload.ObjectKey == nil {
			return storage.ErrNotFound
		}
		c.Key = *c.Upload.ObjectKey
		if c.Upload.DetectedType != nil {
			c.Type = *c.Upload.DetectedType
		}
		return nil
	}
	ds, err := tx.Thumbnails(ctx, c.Upload.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ds, func(d storage.Thumbnail) bool { return d.Size == thumbnail })
	if i < 0 {
		return storage.ErrNotFound
	}
	c.Key, c.Type = ds[i].ObjectKey, ds[i].ContentType
	return nil
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
