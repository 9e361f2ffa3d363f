package hooks

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// uploads finds by rows alone.
func (r *Reconciler) uploads(ctx context.Context, kind Kind, d storage.Disorder, age time.Duration) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		for ref, err := range r.DB.InDisorder(ctx, d, age) {
			if !yield(Finding{Kind: kind, Tenant: ref.Tenant, Upload: ref.Upload}, err) {
				return
			}
		}
	}
}

func (r *Reconciler) drifts(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		found, err := r.DB.Drifts(ctx)
		if err != nil {
			yield(Finding{}, err)
			return
		}
		for _, d := range found {
			f := Finding{Kind: KindQuotaDrift, Tenant: d.Tenant, Detail: fmt.Sprintf("%s are charged, the uploads come to %s",
				humanize.Comma(d.Charged), humanize.Comma(d.Uploads))}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// multiparts finds multipart uploads that no upload is being put together by. The rows are read after the listing: what
// they do not name by then, and no living lease may yet name, they never will.
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
	ref := storage.UploadRef{Tenant: keys.Tenant, Upload: keys.Upload}
	claims, err := r.DB.ClaimsOf(ctx, ref)
	claim, known := claims[ref]
	switch {
	case err != nil:
		return f, false, err
	case !known:
		f, err = r.unknown(ctx, listed, keys)
		return f, false, err
	case claim.Held || claim.OwnsMultipart(listed.MultipartID):
		return f, true, nil
	}
	return finding(KindUnownedMultipart, listed, keys), false, nil
}

// unknown is something in S3 of which no upload exists. Either the rows are older than S3, because a backup of the
// database was restored, or they are another installation's: the last copy of somebody's photo may be among it, so only
// a person decides. It does not matter for how long it has been there. Only of an upload that was removed for good is it
// known to be what a late writer left.
func (r *Reconciler) unknown(ctx context.Context, listed object.Listed, keys object.Keys) (Finding, error) {
	f := finding(KindUnknownObject, listed, keys)
	if listed.MultipartID != "" {
		f.Kind = KindUnknownMultipart
	}
	switch {
	case keys == object.Keys{}:
		f.leave = "Tramo makes no such keys; whose it is only a person can tell"
	case !r.DeleteUnknown:
		purged, err := r.DB.Purged(ctx, storage.UploadRef{Tenant: keys.Tenant, Upload: keys.Upload})
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
