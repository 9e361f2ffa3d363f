package hooks

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// maxLost is how many lost objects are believed in one inventory. More, or nothing but lost ones, is what the wrong
// bucket looks like.
const maxLost = 10

const doubtLoss decision = "so many objects are missing that this looks like the wrong bucket; if they are really gone, --accept-loss fails their uploads"

const doubtMove decision = "it may be the only copy: the object that the database names on the other side of quarantine is missing. If the database has been restored from a backup, make its object_key this one"

// inventory walks all objects and all uploads side by side, in the order of keys, and holds a page of each.
func (r *Reconciler) inventory(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		census := census{accept: r.AcceptLoss}
		for shelf, err := range sideBySide(shelves(r.Bucket.Objects(ctx)), r.DB.Claims(ctx)) {
			var found []Finding
			if err == nil {
				found, err = r.judge(ctx, shelf)
			}
			if err != nil {
				yield(Finding{}, err)
				return
			}
			if !yieldAll(yield, census.add(shelf, found)) {
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

// A census holds back what is lost until it is known whether that can be believed.
type census struct {
	accept  bool
	present int       // uploads whose object is there
	lost    []Finding // no more than maxLost
	doubt   bool
}

func (c *census) add(s shelf, found []Finding) (now []Finding) {
	if s.claim != nil && s.claim.ObjectKey != nil && s.has(*s.claim.ObjectKey) {
		c.present++
	}
	for _, f := range found {
		if f.Kind == KindLostObject && !c.accept {
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

// A shelf is all that there is of one upload: what S3 lists below its prefix, and what its rows claim.
type shelf struct {
	prefix  string
	keys    object.Keys     // the zero value where the prefix is none of ours
	objects []object.Listed // may be empty
	claim   *storage.Claim  // nil without rows
}

func (s shelf) has(key string) bool {
	return slices.ContainsFunc(s.objects, func(o object.Listed) bool { return o.Key == key })
}

// isOnlyCopy reports whether the object is what the rows name on the other side of quarantine, where it is not: it was
// moved after the backup was made that the rows are from.
func (s shelf) isOnlyCopy(key string) bool {
	named := s.claim.ObjectKey
	return named != nil && !s.has(*named) && !s.keys.IsThumbnail(key) && object.IsQuarantined(key) != object.IsQuarantined(*named)
}

// shelves puts objects that follow each other and are of one upload together.
func shelves(objects iter.Seq2[object.Listed, error]) iter.Seq2[shelf, error] {
	return func(yield func(shelf, error) bool) {
		var s shelf
		for o, err := range objects {
			if err != nil {
				yield(shelf{}, err)
				return
			}
			keys, ok := object.ParseKey(o.Key)
			prefix := o.Key
			if ok {
				prefix = keys.Prefix()
			}
			if prefix != s.prefix {
				if s.objects != nil && !yield(s, nil) {
					return
				}
				s = shelf{prefix: prefix, keys: keys}
			}
			s.objects = append(s.objects, o)
		}
		if s.objects != nil {
			yield(s, nil)
		}
	}
}

// sideBySide gives the shelves their claims, and those claims that have none an empty shelf. Both come in the order of
// prefixes.
func sideBySide(full iter.Seq2[shelf, error], claims iter.Seq2[storage.Claim, error]) iter.Seq2[shelf, error] {
	return func(yield func(shelf, error) bool) {
		next, stop := iter.Pull2(claims)
		defer stop()
		claim, err, more := next()
		// upTo yields those without objects before the prefix, or all that are left for "".
		upTo := func(prefix string) bool {
			for more {
				bare := emptyShelf(claim)
				if err == nil && prefix != "" && bare.prefix >= prefix {
					return true
				}
				if !yield(bare, err) || err != nil {
					return false
				}
				claim, err, more = next()
			}
			return true
		}
		for s, listErr := range full {
			if listErr != nil {
				yield(shelf{}, listErr)
				return
			}
			if !upTo(s.prefix) {
				return
			}
			if bare := emptyShelf(claim); more && bare.prefix == s.prefix {
				s.claim = bare.claim
				claim, err, more = next()
			}
			if !yield(s, nil) {
				return
			}
		}
		upTo("")
	}
}

func emptyShelf(c storage.Claim) shelf {
	keys := object.Keys{Tenant: c.Tenant, Project: c.Project, Upload: c.Upload}
	return shelf{prefix: keys.Prefix(), keys: keys, claim: &c}
}

// judge compares what is there with what should be.
func (r *Reconciler) judge(ctx context.Context, s shelf) ([]Finding, error) {
	if s.claim == nil {
		return r.judgeUnknown(ctx, s)
	}
	if s.claim.Held {
		return nil, nil
	}
	var found []Finding
	for _, o := range s.objects {
		if !r.young(o.Since) && unowned(*s.claim, s.keys, o.Key) {
			f := finding(KindUnownedObject, o, s.keys)
			if s.isOnlyCopy(o.Key) {
				f.leave = doubtMove
			}
			found = append(found, f)
		}
	}
	lost, err := r.judgeLost(ctx, s)
	return append(found, lost...), err
}

// unowned reports whether an object of the upload is nobody's. While an upload still receives, all of its objects are left
// alone: if its rows are of a restored backup, one that they do not name may be the whole upload.
func unowned(c storage.Claim, keys object.Keys, key string) bool {
	drawing := (c.Status == storage.Uploaded || c.Status == storage.Processing) && keys.IsThumbnail(key)
	return !c.Status.Receiving() && !c.Owns(key) && !drawing
}

// judgeUnknown looks once more whether there are no rows: they may be younger than the page that was read.
func (r *Reconciler) judgeUnknown(ctx context.Context, s shelf) ([]Finding, error) {
	ref := storage.UploadRef{Tenant: s.keys.Tenant, Upload: s.keys.Upload}
	claims, err := r.DB.ClaimsOf(ctx, ref)
	if _, known := claims[ref]; known || err != nil {
		return nil, err
	}
	var found []Finding
	for _, o := range s.objects {
		if !r.young(o.Since) {
			f, err := r.unknown(ctx, o, s.keys)
			if err != nil {
				return nil, err
			}
			found = append(found, f)
		}
	}
	return found, nil
}

// judgeLost finds what the rows of an upload that is kept name and S3 does not have.
func (r *Reconciler) judgeLost(ctx context.Context, s shelf) ([]Finding, error) {
	kept := s.claim.Status == storage.Uploaded || s.claim.Status == storage.Processing || s.claim.Status == storage.Completed
	if !kept || s.claim.Deleted || s.claim.ObjectKey == nil || r.young(s.claim.UpdatedAt) {
		return nil, nil
	}
	var found []Finding
	for i, key := range append([]string{*s.claim.ObjectKey}, s.claim.Thumbnails...) {
		gone, err := r.gone(ctx, s, key)
		if err != nil {
			return nil, err
		}
		if !gone {
			continue
		}
		f := finding(KindLostObject, object.Listed{Key: key}, s.keys)
		if i > 0 {
			f.Kind, f.leave = KindLostDerivative, "the original is safe; bring the picture back from a version or a backup of the bucket"
		}
		found = append(found, f)
	}
	return found, nil
}

// gone asks S3 about a key that the listing does not have: the rows may be younger.
func (r *Reconciler) gone(ctx context.Context, s shelf, key string) (bool, error) {
	if s.has(key) {
		return false, nil
	}
	_, err := r.Bucket.Size(ctx, key)
	if errors.Is(err, object.ErrNoObject) {
		return true, nil
	}
	return false, err
}
