package hooks_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
)

// whole makes a partial upload that its store has received and finished.
func (y *yard) whole(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	id = uuid.MustParse(y.partial(t, y.ctx, int64(len(content))))
	key, _ = y.store(t, y.ctx, id, content)
	y.exec(t, `update contents set received = $2, stored = true, object_key = $3 where upload_id = $1`, id, len(content), key)
	return id, key
}

func (y *yard) age(t *testing.T, id uuid.UUID) {
	t.Helper()
	y.exec(t, `update contents set touched_at = now() - interval '61 minutes' where upload_id = $1`, id)
}

// A final upload whose concatenation was cut off is finished, and its partial uploads are not given up before. One
// that no final upload came for expires. What a concatenated one left in S3 is removed.
func TestReconcileConcatenations(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	a, _ := y.whole(t)
	b, keyB := y.whole(t)
	y.age(t, a)
	y.age(t, b)
	final, err := y.admission.Admit(y.ctx, hooks.Request{Partials: []string{a.String(), b.String()}})
	must(t, err)
	y.exec(t, `update contents set received = 0 where upload_id = $1`, final.ID)
	alone, keyAlone := y.whole(t)
	y.age(t, alone)

	want := map[uuid.UUID]hooks.Kind{final.ID: hooks.KindFinishCutOff, alone: hooks.KindExpired}
	for _, f := range y.reconcile(t) {
		if want[f.Upload] != f.Kind || f.Outcome != hooks.Repaired {
			t.Errorf("found %s of %s: %s, %v", f.Kind, f.Upload, f.Outcome, f.Reason)
		}
		delete(want, f.Upload)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	if u := y.upload(t, y.ctx, final.ID); u.Status != storage.Uploaded || u.ChargedBytes != 20 {
		t.Errorf("the final upload is %+v", u)
	}
	if u := y.upload(t, y.ctx, b); u.Status != storage.Concatenated {
		t.Errorf("a partial upload is %s", u.Status)
	}
	if room := y.room(t, y.ctx); room != quota-20 {
		t.Errorf("%d bytes are left", room)
	}
	y.wantObject(t, keyB, false)
	y.wantObject(t, keyAlone, false)

	y.put(t, keyB) // as if its removal had failed
	found := y.reconcile(t)
	if len(found) != 1 || found[0].Kind != hooks.KindUnownedObject || found[0].Key != keyB {
		t.Errorf("found %+v", found)
	}
	y.wantObject(t, keyB, false)
	if again := y.reconcile(t); len(again) != 0 {
		t.Errorf("another pass found %+v", again)
	}
}
