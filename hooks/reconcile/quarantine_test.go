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
	y := hookstest.NewTenant(t)
	y.Sound(t)
	kept, keptKey := y.Quarantine(t)
	if found := y.Reconcile(t); len(found) != 0 {
		t.Fatalf("found %+v", found)
	}
	whole, original, picture := y.Complete(t)
	unknown := y.Keys(uuid.Must(uuid.NewV7())).Quarantine(1)
	want := []string{
		y.Keys(kept).Original(1), y.Keys(kept).Thumbnail(160), y.Keys(kept).Quarantine(99), // of one in quarantine
		y.Keys(whole).Quarantine(5), // of one that was not moved after all, or is back
	}
	for _, key := range append(want, unknown) {
		y.Put(t, key)
	}
	y.Multipart(t, y.Keys(whole).Quarantine(6), hookstest.Content)
	var deleted []string
	for _, f := range y.Reconcile(t) {
		switch {
		case f.Key == unknown && f.Kind == reconcile.UnknownObject && f.Outcome == reconcile.Left:
		case f.Kind == reconcile.OrphanedObject && f.Outcome == reconcile.Repaired:
			deleted = append(deleted, f.Key)
		case f.Kind == reconcile.OrphanedMultipart && f.Outcome == reconcile.Repaired && f.Key == y.Keys(whole).Quarantine(6):
			deleted = append(deleted, f.Key)
		default:
			t.Errorf("found %+v", f)
		}
	}
	want = append(want, y.Keys(whole).Quarantine(6))
	slices.Sort(want)
	slices.Sort(deleted)
	if !slices.Equal(deleted, want) {
		t.Errorf("deleted are %q, want %q", deleted, want)
	}
	for _, key := range []string{keptKey, original, picture, unknown} {
		y.WantObject(t, key, true)
	}
	if found := y.Reconcile(t); len(found) != 1 { // the unknown one
		t.Errorf("a second pass finds %+v", found)
	}
}

// The database is older than the bucket: what was moved since, into quarantine or out of it, is under a key that the rows do
// not name. It is the only copy, and stays.
func TestReconcilerLeavesTheOnlyCopy(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	y.Complete(t) // or all would be lost, which is the wrong bucket
	in, original, _ := y.Complete(t)
	stack.Must(t, y.Bucket.Delete(y.Ctx, original))
	out, key := y.Quarantine(t)
	stack.Must(t, y.Bucket.Delete(y.Ctx, key))
	for _, left := range []string{y.Keys(in).Quarantine(5), y.Keys(out).Original(5)} {
		y.Put(t, left)
		found := 0
		for _, f := range y.Reconcile(t) {
			if f.Key == left && f.Kind == reconcile.OrphanedObject && f.Outcome == reconcile.Left {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s was found %d times", left, found)
		}
		y.WantObject(t, left, true)
	}
}

// While a worker moves an object, under the upload's lease, its copy is nobody's finding.
func TestReconcilerLeavesMoves(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	id, original, _ := y.Complete(t)
	y.Put(t, y.Keys(id).Quarantine(7))
	y.Exec(t, `with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
		insert into upload_leases select $1, $2, id, 7 from me`, y.ID, id)
	if found := y.Reconcile(t); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	y.WantObject(t, original, true)
	y.WantObject(t, y.Keys(id).Quarantine(7), true)
}
