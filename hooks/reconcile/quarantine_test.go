package reconcile_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/test/stack"
)

// What a crash leaves of a move, into quarantine or out of it, is found and deleted: the copy that no row names, the
// object that no row names any more, its pictures, and the half-done copy of a large one. What a row names is left alone in
// quarantine as elsewhere, a second pass finds nothing, and what is unknown there is left for a person.
func TestReconcilerKnowsQuarantine(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	s.Sound(t)
	kept, keptKey := s.Quarantine(t)
	if found := s.Reconcile(t); len(found) != 0 {
		t.Fatalf("found %+v", found)
	}
	whole, original, picture := s.Complete(t)
	unknown := s.Keys(uuid.Must(uuid.NewV7())).Quarantine(1)
	want := []string{
		s.Keys(kept).Original(1), s.Keys(kept).Thumbnail(160), s.Keys(kept).Quarantine(99), // of an upload in quarantine
		s.Keys(whole).Quarantine(5), // of an upload that was not moved, or was released
	}
	for _, key := range append(want, unknown) {
		s.Put(t, key)
	}
	s.Multipart(t, s.Keys(whole).Quarantine(6), hookstest.Content)
	var deleted []string
	for _, f := range s.Reconcile(t) {
		switch {
		case f.Key == unknown && f.Kind == reconcile.UnknownObject && f.Outcome == reconcile.Left:
		case f.Kind == reconcile.OrphanedObject && f.Outcome == reconcile.Repaired:
			deleted = append(deleted, f.Key)
		case f.Kind == reconcile.OrphanedMultipart && f.Outcome == reconcile.Repaired && f.Key == s.Keys(whole).Quarantine(6):
			deleted = append(deleted, f.Key)
		default:
			t.Errorf("found %+v", f)
		}
	}
	want = append(want, s.Keys(whole).Quarantine(6))
	slices.Sort(want)
	slices.Sort(deleted)
	stack.Want(t, deleted, want, "deleted objects")
	for _, key := range []string{keptKey, original, picture, unknown} {
		s.WantObject(t, key, true)
	}
	if found := s.Reconcile(t); len(found) != 1 { // the unknown one
		t.Errorf("a second pass finds %+v", found)
	}
}

// The database is older than the bucket: an object that was moved since, into quarantine or out of it, is under a key that the
// rows do not name. It is the only copy, and is left.
func TestReconcilerLeavesTheOnlyCopy(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	s.Complete(t) // without it all objects would be missing, which looks like the wrong bucket
	in, original, _ := s.Complete(t)
	stack.Must(t, s.Bucket.Delete(s.Ctx, original))
	out, key := s.Quarantine(t)
	stack.Must(t, s.Bucket.Delete(s.Ctx, key))
	for _, left := range []string{s.Keys(in).Quarantine(5), s.Keys(out).Original(5)} {
		s.Put(t, left)
		found := 0
		for _, f := range s.Reconcile(t) {
			if f.Key == left && f.Kind == reconcile.OrphanedObject && f.Outcome == reconcile.Left {
				found++
			}
		}
		stack.Want(t, found, 1, "findings of %s", left)
		s.WantObject(t, left, true)
	}
}

// While a worker moves an object, under the upload's lease, the copy is no finding.
func TestReconcilerLeavesMoves(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	id, original, _ := s.Complete(t)
	s.Put(t, s.Keys(id).Quarantine(7))
	s.Exec(t, `with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
		insert into upload_leases select $1, $2, id, 7 from me`, s.ID, id)
	if found := s.Reconcile(t); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	s.WantObject(t, original, true)
	s.WantObject(t, s.Keys(id).Quarantine(7), true)
}
