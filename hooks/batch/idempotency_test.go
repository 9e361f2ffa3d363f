package batch_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func keyOf(key, request string) batch.IdempotencyKey {
	sum := sha256.Sum256([]byte(request))
	return batch.IdempotencyKey{Key: key, Request: sum[:]}
}

// A request acts once under its key, also if it is repeated while it runs; one that failed may be tried again, and
// another user's or tenant's key of the same name is another key.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1<<20)
	times := 0
	act := func(ctx context.Context, o batch.IdempotencyKey, fail error) (answer string, again bool, err error) {
		err = d.API.InTenant(ctx, func(tx storage.Tx) error {
			var b []byte
			b, again, err = batch.Once(ctx, tx, o, func() ([]byte, error) {
				times++
				return []byte("made"), fail
			})
			answer = string(b)
			return err
		})
		return answer, again, err
	}
	broken := errors.New("broken")
	_, _, err := act(ctx, keyOf("k", "a"), broken)
	stack.WantErr(t, err, broken)
	for i := range 3 {
		answer, again, err := act(ctx, keyOf("k", "a"), nil)
		if err != nil || answer != "made" || again != (i > 0) || times != 2 {
			t.Errorf("time %d: %q, again %t, acted %d times, %v", i, answer, again, times, err)
		}
	}
	_, _, err = act(ctx, keyOf("k", "b"), nil)
	stack.WantErr(t, err, batch.ErrKeyReused)
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	who.User = "eva"
	for _, other := range []context.Context{tenant.With(ctx, who), d.NewTenant(t, 1)} {
		if _, again, err := act(other, keyOf("k", "b"), nil); err != nil || again {
			t.Errorf("somebody else's key: again %t, %v", again, err)
		}
	}

	// An answer is given to nobody who may see less than the one who got it, or who has entered under the same name.
	who.User = "ana"
	for name, change := range map[string]func(*tenant.Identity){
		"some projects":            func(id *tenant.Identity) { id.Projects = []string{"torre"} },
		"another role":             func(id *tenant.Identity) { id.Role = tenant.Constructora },
		"an admin who has entered": func(id *tenant.Identity) { id.Home = uuid.New() },
	} {
		as := who
		change(&as)
		if answer, _, err := act(tenant.With(ctx, as), keyOf("k", "a"), nil); !errors.Is(err, batch.ErrKeyReused) {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
	}
	narrow := who
	narrow.Projects = []string{"torre", "casa"}
	_, _, err = act(tenant.With(ctx, narrow), keyOf("narrow", "a"), nil)
	stack.Must(t, err)
	narrow.Projects = []string{"casa", "torre"} // the same in another order
	if _, again, err := act(tenant.With(ctx, narrow), keyOf("narrow", "a"), nil); err != nil || !again {
		t.Errorf("the same projects: again %t, %v", again, err)
	}

	// While it runs, the same request is refused.
	d.Must(t, ctx, func(tx storage.Tx) error {
		_, _, err := batch.Once(ctx, tx, keyOf("running", "a"), func() ([]byte, error) {
			_, _, err := act(ctx, keyOf("running", "a"), nil)
			stack.WantErr(t, err, batch.ErrKeyBusy)
			return []byte{}, nil
		})
		return err
	})
}

// Answers are kept for a day and then forgotten.
func TestAnswersAreForgotten(t *testing.T) {
	t.Parallel()
	d := newSite(t)
	ctx := d.NewTenant(t, 1)
	for _, key := range []string{"old", "new"} {
		d.Must(t, ctx, func(tx storage.Tx) error {
			_, _, err := batch.Once(ctx, tx, keyOf(key, "a"), func() ([]byte, error) { return []byte{}, nil })
			return err
		})
	}
	d.Exec(t, `update idempotency_keys set created_at = now() - $1::interval where key = 'old'`, batch.AnswerRetention+1e9)
	n, err := batch.ForgetAnswers(t.Context(), d.Worker)
	stack.Must(t, err)
	if left := storagetest.Column[string](t, d.Admin(t), `select key from idempotency_keys`); n != 1 || len(left) != 1 || left[0] != "new" {
		t.Errorf("%d were forgotten, %v are left", n, left)
	}
}
