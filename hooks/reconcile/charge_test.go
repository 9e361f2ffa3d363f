package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// Whatever a tenant does, and whether or not S3 works meanwhile: after each step S3 has no more bytes of an upload than it is
// charged, save for final uploads that are being assembled, whose partial uploads are charged (docs/reference/limits.md). Once all
// that is unfinished is cancelled and S3 works, it is charged exactly what S3 has.
func TestChargeCoversWhatS3Has(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if v := os.Getenv("TRAMO_TEST_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		stack.Must(t, err)
	}
	t.Logf("TRAMO_TEST_SEED=%d", seed)
	w := &walk{yard: newYard(t, 20*size), rnd: rand.New(rand.NewPCG(seed, 0))}
	w.admin = w.Admin(t)
	w.r = w.Reconciler(t, prometheus.NewRegistry())
	for range 30 {
		what := w.step(t)
		w.check(t, what)
		if t.Failed() {
			return
		}
	}
	w.proxy.Fault(nil)
	w.end(t)
}

// A walk does random things in a yard.
type walk struct {
	*yard
	admin    *pgx.Conn
	r        *reconcile.Reconciler
	rnd      *rand.Rand
	uploads  []uuid.UUID
	partials []string
	begun    []uuid.UUID // batches
}

func (w *walk) check(t *testing.T, what string) {
	t.Helper()
	stored := w.StoredOf(t, w.ID)
	most := make(map[uuid.UUID]int64)
	rows, err := w.admin.Query(t.Context(), `
		select u.id, charged_bytes + c.next_part -- a part that does not count has one byte
			+ case when kind = 'final' and status <> 'uploaded' then size else 0 end
		from uploads u join contents c on c.upload_id = u.id where u.tenant_id = $1`, w.ID)
	stack.Must(t, err)
	var id uuid.UUID
	var bytes int64
	_, err = pgx.ForEachRow(rows, []any{&id, &bytes}, func() error {
		most[id] = bytes
		return nil
	})
	stack.Must(t, err)
	for id, n := range stored {
		if n > most[id] {
			t.Errorf("after %s, S3 has %d bytes of the upload %s, and the most is %d", what, n, id, most[id])
		}
	}
	w.WantCount(t, int(w.Charged(t, w.ID)), `select coalesce(sum(charged_bytes), 0)::bigint from uploads where tenant_id = $1`, w.ID)
}

// step does one thing, and returns what. That it may fail is as good: the upload has ended, or S3 is away.
func (w *walk) step(t *testing.T) string {
	t.Helper()
	var err error
	var what string
	switch n := w.rnd.IntN(24); n {
	case 0, 1:
		what, err = "a creation", w.create(hooks.Request{Size: w.size()})
	case 2:
		what, err = "a creation without a length", w.create(hooks.Request{SizeDeferred: true})
	case 3:
		what, err = "a creation with a wrong checksum", w.create(hooks.Request{
			Size: w.size(), Metadata: map[string]string{"sha256": strings.Repeat("f", 64)},
		})
	case 4:
		what, err = "a partial upload", w.partial()
	case 5:
		what, err = "a concatenation", w.concatenate()
	case 6, 7:
		what, err = "a batch", w.announce()
	case 8, 9:
		what, err = "the cancellation of a batch", w.cancelBatch()
	case 10:
		what, err = "a DELETE", w.Terminate(w.Ctx, w.receiving())
	case 11, 12:
		what, err = "a PATCH with a wrong checksum", w.patch(true)
	case 13:
		what, err = "a declared length", w.declare()
	case 14:
		what = "an expiry"
		w.Exec(t, `update contents set touched_at = now() - interval '2 hours' where upload_id = $1`, w.receiving())
		err = w.reconcile()
	case 15:
		what, err = "an erasure", w.erase(t)
	case 16, 17:
		what = "faults of S3"
		w.fault()
	case 18:
		what, err = "a pass of the reconciler", w.reconcile()
	default:
		what, err = "a PATCH", w.patch(false)
	}
	t.Logf("%s: %v", what, err)
	return what
}

// reconcile makes both passes. S3 may refuse to list.
func (w *walk) reconcile() error {
	return w.r.Leases.During(w.Ctx, func(ctx context.Context) error {
		return errors.Join(w.r.Reconcile(ctx), w.r.TakeInventory(ctx))
	})
}

// size is that of an upload of one part, or, more often, of two.
func (w *walk) size() int64 {
	if w.rnd.IntN(4) == 0 {
		return 1 + w.rnd.Int64N(part)
	}
	return part + 1 + w.rnd.Int64N(size-part)
}

func (w *walk) create(r hooks.Request) error {
	a, err := w.Uploads.Create(w.Ctx, r)
	if err == nil {
		w.uploads = append(w.uploads, a.ID)
	}
	return err
}

// one is any upload, or none that is there.
func (w *walk) one() uuid.UUID {
	if len(w.uploads) == 0 {
		return uuid.Nil
	}
	return w.uploads[w.rnd.IntN(len(w.uploads))]
}

// receiving is one that takes bytes, if any does.
func (w *walk) receiving() uuid.UUID {
	for _, i := range w.rnd.Perm(len(w.uploads)) {
		if u, err := w.Uploads.View(w.Ctx, w.uploads[i]); err == nil && u.Row().Status.Receiving() {
			return w.uploads[i]
		}
	}
	return uuid.Nil
}

func (w *walk) patch(wrong bool) error {
	id := w.receiving()
	u, err := w.Uploads.View(w.Ctx, id)
	if err != nil {
		return err
	}
	row := u.Row()
	most := 2*size - row.Received
	if !row.SizeDeferred {
		most = row.Size - row.Received
	}
	if most <= 0 {
		return nil
	}
	n := most
	if !wrong && w.rnd.IntN(2) == 0 {
		n = min(most, 1+w.rnd.Int64N(2*part))
	}
	var check *object.Check
	if wrong {
		check = object.NewCheck(func() (object.Checksum, error) {
			return object.Checksum{Algorithm: "sha256", Sum: make([]byte, 32)}, nil
		}, "sha256")
	}
	return w.Patch(w.Ctx, id, hookstest.Body(content[:n]), check)
}

func (w *walk) partial() error {
	n := w.size()
	a, err := w.Uploads.Create(w.Ctx, hooks.Request{Size: n, Partial: true})
	if err != nil {
		return err
	}
	w.uploads, w.partials = append(w.uploads, a.ID), append(w.partials, a.ID.String())
	return w.Patch(w.Ctx, a.ID, hookstest.Body(content[:n]), nil)
}

func (w *walk) concatenate() error {
	if len(w.partials) == 0 {
		return nil
	}
	some := w.partials[:min(2, len(w.partials))]
	a, err := w.Uploads.Create(w.Ctx, hooks.Request{Partials: some})
	if err != nil {
		w.partials = w.partials[1:]
		return err
	}
	w.uploads = append(w.uploads, a.ID)
	return w.Uploads.Concatenate(w.Ctx, a.ID, stack.Patience)
}

func (w *walk) announce() error {
	id, uploads, err := w.batch(2)
	if err != nil {
		return err
	}
	w.begun, w.uploads = append(w.begun, id), append(w.uploads, uploads...)
	return w.Patch(w.Ctx, uploads[0], hookstest.Body(content[:part]), nil)
}

func (w *walk) cancelBatch() error {
	if len(w.begun) == 0 {
		return nil
	}
	last := w.begun[len(w.begun)-1]
	w.begun = w.begun[:len(w.begun)-1]
	_, err := w.batches.Cancel(w.manager, last)
	return err
}

func (w *walk) declare() error {
	u, err := w.Uploads.Open(w.Ctx, w.receiving(), stack.Patience, nil)
	if err != nil {
		return err
	}
	defer u.Close(w.Ctx)
	return u.DeclareLength(w.Ctx, u.Row().Received+w.rnd.Int64N(mib))
}

func (w *walk) erase(t *testing.T) error {
	_, err := w.Erasures.Request(w.As(context.WithoutCancel(w.manager), "marta", tenant.Constructora), erasure.Request{Upload: w.one()})
	if err != nil {
		return err
	}
	return w.Erase(t)
}

// fault ends the faults of S3, or begins new ones: it refuses all, or only to remove, or every third request.
func (w *walk) fault() {
	switch w.rnd.IntN(4) {
	case 0:
		w.proxy.Fault(func(string, int) stack.Fault { return refused })
	case 1:
		w.refuseRemoval(true)
	case 2:
		w.proxy.Fault(func(_ string, n int) stack.Fault {
			if n%3 > 0 {
				return stack.Fault{}
			}
			return refused
		})
	default:
		w.proxy.Fault(nil)
	}
}

var refused = stack.Fault{Status: http.StatusForbidden, Code: "AccessDenied"} // which nobody tries again

// end cancels all that is unfinished, and has what remains removed.
func (w *walk) end(t *testing.T) {
	t.Helper()
	stack.Must(t, w.reconcile()) // finishes what has all its bytes
	for _, id := range w.uploads {
		if u, err := w.Uploads.View(w.Ctx, id); err == nil && u.Row().Status.Receiving() {
			if err := w.Terminate(w.Ctx, id); err != nil {
				t.Logf("DELETE of a %s upload: %v", u.Row().Kind, err)
			}
		}
	}
	stack.Must(t, w.Erase(t))
	stack.Must(t, w.reconcile())
	stack.Want(t, fmt.Sprint(w.Stored(t, w.ID)), fmt.Sprint(w.Charged(t, w.ID)), "bytes in S3, and bytes charged")
}
