package reconcile_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

func (s *site) age(t *testing.T, id uuid.UUID) {
	t.Helper()
	s.Exec(t, `update contents set touched_at = now() - interval '61 minutes' where upload_id = $1`, id)
}

// A final upload whose concatenation was cut off is finished, and its partial uploads are not given up before. One
// that no final upload came for expires. What a concatenated one left in S3 is removed.
func TestReconcileConcatenations(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, _ := s.Partial(t)
	b, keyB := s.Partial(t)
	s.age(t, a)
	s.age(t, b)
	final, err := s.Admission.Admit(s.Ctx, hooks.Request{Partials: []string{a.String(), b.String()}})
	stack.Must(t, err)
	s.Exec(t, `update contents set received = 0 where upload_id = $1`, final.ID)
	alone, keyAlone := s.Partial(t)
	s.age(t, alone)

	want := map[uuid.UUID]reconcile.Kind{final.ID: reconcile.InterruptedFinish, alone: reconcile.IdleUpload}
	for _, f := range s.reconcile(t) {
		if want[f.Upload] != f.Kind || f.Outcome != reconcile.Repaired {
			t.Errorf("found %s of %s: %s, %v", f.Kind, f.Upload, f.Outcome, f.Reason)
		}
		delete(want, f.Upload)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	if u := s.Upload(t, s.Ctx, final.ID); u.Status != storage.Uploaded || u.ChargedBytes != 20 {
		t.Errorf("the final upload is %+v", u)
	}
	stack.Want(t, s.Upload(t, s.Ctx, b).Status, storage.Concatenated, "status of a partial upload")
	s.WantRoom(t, s.Ctx, hookstest.Quota-20)
	s.WantObject(t, keyB, false)
	s.WantObject(t, keyAlone, false)

	s.Put(t, keyB) // as if its removal had failed
	found := s.reconcile(t)
	if len(found) != 1 || found[0].Kind != reconcile.OrphanedObject || found[0].Key != keyB {
		t.Errorf("found %+v", found)
	}
	s.WantObject(t, keyB, false)
	if again := s.reconcile(t); len(again) != 0 {
		t.Errorf("another pass found %+v", again)
	}
}
