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

func (y *yard) age(t *testing.T, id uuid.UUID) {
	t.Helper()
	y.Exec(t, `update contents set touched_at = now() - interval '61 minutes' where upload_id = $1`, id)
}

// A final upload whose concatenation was cut off is finished, and its partial uploads are not given up before. One
// that no final upload came for expires. What a concatenated one left in S3 is removed.
func TestReconcileConcatenations(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	a, _ := y.Partial(t)
	b, keyB := y.Partial(t)
	y.age(t, a)
	y.age(t, b)
	final, err := y.Admission.Admit(y.Ctx, hooks.Request{Partials: []string{a.String(), b.String()}})
	stack.Must(t, err)
	y.Exec(t, `update contents set received = 0 where upload_id = $1`, final.ID)
	alone, keyAlone := y.Partial(t)
	y.age(t, alone)

	want := map[uuid.UUID]reconcile.Kind{final.ID: reconcile.InterruptedFinish, alone: reconcile.IdleUpload}
	for _, f := range y.reconcile(t) {
		if want[f.Upload] != f.Kind || f.Outcome != reconcile.Repaired {
			t.Errorf("found %s of %s: %s, %v", f.Kind, f.Upload, f.Outcome, f.Reason)
		}
		delete(want, f.Upload)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	if u := y.Upload(t, y.Ctx, final.ID); u.Status != storage.Uploaded || u.ChargedBytes != 20 {
		t.Errorf("the final upload is %+v", u)
	}
	if u := y.Upload(t, y.Ctx, b); u.Status != storage.Concatenated {
		t.Errorf("a partial upload is %s", u.Status)
	}
	y.WantRoom(t, y.Ctx, hookstest.Quota-20)
	y.WantObject(t, keyB, false)
	y.WantObject(t, keyAlone, false)

	y.Put(t, keyB) // as if its removal had failed
	found := y.reconcile(t)
	if len(found) != 1 || found[0].Kind != reconcile.OrphanedObject || found[0].Key != keyB {
		t.Errorf("found %+v", found)
	}
	y.WantObject(t, keyB, false)
	if again := y.reconcile(t); len(again) != 0 {
		t.Errorf("another pass found %+v", again)
	}
}
