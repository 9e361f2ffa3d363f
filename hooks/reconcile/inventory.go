package reconcile

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// maxLost is how many lost objects one inventory believes in. More of them, or no object that is there, look like the wrong
// bucket.
const maxLost = 10

const (
	doubtLoss decision = "so many objects are missing that this looks like the wrong bucket; if they are really gone, --accept-loss fails their uploads"
	doubtMove decision = "it may be the only copy: the object that the database names, in quarantine or outside, is missing. If the database has been restored from a backup, make its object_key this one"
)

// objects walks all objects and all uploads side by side, in the order of keys, and holds a page of each.
func (r *Reconciler) objects(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		census := census{accept: r.AcceptLoss}
		for h, err := range sideBySide(byUpload(r.Bucket.Objects(ctx)), allClaims(ctx, r.DB)) {
			var found []Finding
			if err == nil {
				found, err = r.judge(ctx, h)
			}
			if err != nil {
				yield(Finding{}, err)
				return
			}
			if !yieldAll(yield, census.add(h, found)) {
				return
			}
		}
		yieldAll(yield, census.close())
	}
}

func yieldAll(yield func(Finding, error) bool, found []Finding) bool {
	for _, f := range found {
		if !yield(f, nil) {
			return false
		}
	}
	return true
}

// A census holds lost objects back until it is known whether that can be believed.
type census struct {
	accept  bool
	present int       // uploads whose object is there
	lost    []Finding // no more than maxLost
	doubt   bool
}

func (c *census) add(h holding, found []Finding) (now []Finding) {
	if h.claim != nil && h.claim.ObjectKey != nil && h.has(*h.claim.ObjectKey) {
		c.present++
	}
	for _, f := range found {
		if f.Kind == LostObject && !c.accept {
			c.lost = append(c.lost, f)
			continue
		}
		now = append(now, f)
	}
	if c.doubt = c.doubt || len(c.lost) > maxLost; c.doubt {
		now = append(now, c.close()...)
	}
	return now
}

// close returns what was held back.
func (c *census) close() []Finding {
	if c.doubt || c.present == 0 {
		for i := range c.lost {
			c.lost[i].leave = doubtLoss
		}
	}
	lost := c.lost
	c.lost = nil
	return lost
}

// A holding is all that there is of one upload: what S3 lists below its prefix, and what its rows claim.
type holding struct {
	prefix  string
	keys    object.Keys     // the zero value where Tramo makes no such prefix
	objects []object.Listed // may be empty
	claim   *claim          // nil without rows
}

func (h holding) has(key string) bool {
	return slices.ContainsFunc(h.objects, func(o object.Listed) bool { return o.Key == key })
}

// isOnlyCopy reports whether the object that the rows name is missing, and this one is in quarantine where that is outside, or
// the other way round: it was moved after the backup was made that the rows are from.
func (h holding) isOnlyCopy(key string) bool {
	named := h.claim.ObjectKey
	return named != nil && !h.has(*named) && !h.keys.IsThumbnail(key) && object.IsQuarantined(key) != object.IsQuarantined(*named)
}

// byUpload puts objects that follow each other and are of one upload together.
func byUpload(objects iter.Seq2[object.Listed, error]) iter.Seq2[holding, error] {
	return func(yield func(holding, error) bool) {
		var h holding
		for o, err := range objects {
			if err != nil {
				yield(holding{}, err)
				return
			}
			keys, ok := object.ParseKey(o.Key)
			prefix := o.Key
			if ok {
				prefix = keys.Prefix()
			}
			if prefix != h.prefix {
				if h.objects != nil && !yield(h, nil) {
					return
				}
				h = holding{prefix: prefix, keys: keys}
			}
			h.objects = append(h.objects, o)
		}
		if h.objects != nil {
			yield(h, nil)
		}
	}
}

// sideBySide adds the claims to the holdings, and holdings without objects for the other claims. Both come in the order of
// prefixes.
func sideBySide(stored iter.Seq2[holding, error], claims iter.Seq2[claim, error]) iter.Seq2[holding, error] {
	return func(yield func(holding, error) bool) {
		next, stop := iter.Pull2(claims)
		defer stop()
		c, err, more := next()
		// upTo yields those without objects before the prefix, or all that are left for "".
		upTo := func(prefix string) bool {
			for more {
				bare := withoutObjects(c)
				if err == nil && prefix != "" && bare.prefix >= prefix {
					return true
				}
				if !yield(bare, err) || err != nil {
					return false
				}
				c, err, more = next()
			}
			return true
		}
		for h, listErr := range stored {
			if listErr != nil {
				yield(holding{}, listErr)
				return
			}
			if !upTo(h.prefix) {
				return
			}
			if bare := withoutObjects(c); more && bare.prefix == h.prefix {
				h.claim = bare.claim
				c, err, more = next()
			}
			if !yield(h, nil) {
				return
			}
		}
		upTo("")
	}
}

func withoutObjects(c claim) holding {
	keys := object.Keys{Tenant: c.Tenant, Project: c.Project, Upload: c.Upload}
	return holding{prefix: keys.Prefix(), keys: keys, claim: &c}
}

// judge compares what is there with what should be.
func (r *Reconciler) judge(ctx context.Context, h holding) ([]Finding, error) {
	if h.claim == nil {
		return r.judgeUnknown(ctx, h)
	}
	if h.claim.Held {
		return nil, nil
	}
	var found []Finding
	for _, o := range h.objects {
		if !r.young(o.Since) && orphaned(*h.claim, h.keys, o.Key) {
			f := finding(OrphanedObject, o, h.keys)
			if h.isOnlyCopy(o.Key) {
				f.leave = doubtMove
			}
			found = append(found, f)
		}
	}
	lost, err := r.judgeLost(ctx, h)
	return append(found, lost...), err
}

// orphaned reports whether no row names an object of the upload, and none will. While an upload still receives, all of its
// objects are left alone: if its rows are of a restored backup, one that they do not name may be the whole upload.
func orphaned(c claim, keys object.Keys, key string) bool {
	inProcess := (c.Status == storage.Uploaded || c.Status == storage.Processing) && keys.IsThumbnail(key)
	return !c.Status.Receiving() && !c.owns(key) && !inProcess
}

// judgeUnknown reads the rows once more: they may be younger than the page that was read.
func (r *Reconciler) judgeUnknown(ctx context.Context, h holding) ([]Finding, error) {
	if _, err := findClaim(ctx, r.DB, h.keys.Tenant, h.keys.Upload); !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	var found []Finding
	for _, o := range h.objects {
		if !r.young(o.Since) {
			f, err := r.unknown(ctx, o, h.keys)
			if err != nil {
				return nil, err
			}
			found = append(found, f)
		}
	}
	return found, nil
}

// judgeLost finds what the rows of an upload that is kept name and S3 does not have.
func (r *Reconciler) judgeLost(ctx context.Context, h holding) ([]Finding, error) {
	kept := h.claim.Status == storage.Uploaded || h.claim.Status == storage.Processing || h.claim.Status == storage.Completed
	if !kept || h.claim.Deleted || h.claim.ObjectKey == nil || r.young(h.claim.UpdatedAt) {
		return nil, nil
	}
	var found []Finding
	for i, key := range append([]string{*h.claim.ObjectKey}, h.claim.Thumbnails...) {
		gone, err := r.gone(ctx, h, key)
		if err != nil {
			return nil, err
		}
		if !gone {
			continue
		}
		f := finding(LostObject, object.Listed{Key: key}, h.keys)
		if i > 0 {
			f.Kind, f.leave = LostThumbnail, "the original is safe; bring the thumbnail back from a version or a backup of the bucket"
		}
		found = append(found, f)
	}
	return found, nil
}

// gone asks S3 about a key that the listing does not have: the rows may be younger.
func (r *Reconciler) gone(ctx context.Context, h holding, key string) (bool, error) {
	if h.has(key) {
		return false, nil
	}
	_, err := r.Bucket.Size(ctx, key)
	if errors.Is(err, object.ErrNoObject) {
		return true, nil
	}
	return false, err
}
