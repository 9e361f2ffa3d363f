package reconcile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// uploads finds by rows alone.
func (r *Reconciler) uploads(ctx context.Context, kind Kind, condition string, age time.Duration) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		for ref, err := range findUploads(ctx, r.DB, condition, age) {
			if !yield(Finding{Kind: kind, Tenant: ref.Tenant, Upload: ref.Upload}, err) {
				return
			}
		}
	}
}

// ended finds uploads that have ended and are still charged, deleted ones included, for S3 may have bytes of them.
func (r *Reconciler) ended(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		for ref, err := range findRemaining(ctx, r.DB, r.StuckGrace) {
			if !yield(Finding{Kind: EndedUpload, Tenant: ref.Tenant, Upload: ref.Upload}, err) {
				return
			}
		}
	}
}

func (r *Reconciler) drifts(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		found, err := findDrifts(ctx, r.DB)
		if err != nil {
			yield(Finding{}, err)
			return
		}
		for _, d := range found {
			f := Finding{Kind: QuotaDrift, Tenant: d.Tenant, Detail: fmt.Sprintf("%s bytes are charged, the uploads come to %s",
				humanize.Comma(d.Charged), humanize.Comma(d.Uploads))}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// multiparts finds multipart uploads that no upload is being put together by. The rows are read after the listing: what they
// do not name by then, while no live process holds the upload, they will never name.
func (r *Reconciler) multiparts(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		for listed, err := range r.Bucket.Multiparts(ctx) {
			if err != nil {
				yield(Finding{}, err)
				return
			}
			if r.young(listed.Since) {
				continue
			}
			f, owned, err := r.judgeMultipart(ctx, listed)
			if owned {
				continue
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func (r *Reconciler) judgeMultipart(ctx context.Context, listed object.Listed) (f Finding, owned bool, err error) {
	keys, ok := object.ParseKey(listed.Key)
	if !ok {
		f, err = r.unknown(ctx, listed, object.Keys{})
		return f, false, err
	}
	c, err := findClaim(ctx, r.DB, keys.Tenant, keys.Upload)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		f, err = r.unknown(ctx, listed, keys)
		return f, false, err
	case err != nil:
		return f, false, err
	case c.Held || c.ownsMultipart(listed.MultipartID):
		return f, true, nil
	}
	return finding(OrphanedMultipart, listed, keys), false, nil
}

// unknown is something in S3 of which no upload exists. Either the rows are older than S3, because a backup of the database
// was restored, or they are another installation's: the last copy of somebody's photo may be among it, so only a person
// decides, however old it is. Only of an upload that was erased is it known to be what a late writer left.
func (r *Reconciler) unknown(ctx context.Context, listed object.Listed, keys object.Keys) (Finding, error) {
	f := finding(UnknownObject, listed, keys)
	if listed.MultipartID != "" {
		f.Kind = UnknownMultipart
	}
	switch {
	case keys == object.Keys{}:
		f.leave = "Tramo makes no such keys; only a person can tell whose it is"
	case !r.DeleteUnknown:
		purged, err := erasure.Purged(ctx, r.DB, storage.UploadRef{Tenant: keys.Tenant, Upload: keys.Upload})
		if err != nil || purged {
			return f, err
		}
		f.leave = "no such upload is known; if the database has not been restored from a backup and the bucket is the right one, --delete-unknown deletes it"
	}
	return f, nil
}

func finding(k Kind, listed object.Listed, keys object.Keys) Finding {
	return Finding{Kind: k, Tenant: keys.Tenant, Upload: keys.Upload, Key: listed.Key, MultipartID: listed.MultipartID}
}

func (r *Reconciler) young(since time.Time) bool { return time.Since(since) < r.OrphanGrace }
