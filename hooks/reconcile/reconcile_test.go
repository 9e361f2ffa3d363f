package reconcile_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A yard is a tenant with uploads to repair, and a reconciler.
type yard struct {
	*hookstest.Tenant
	registry *prometheus.Registry
	r        *reconcile.Reconciler
}

func newYard(t *testing.T) *yard {
	t.Helper()
	registry := prometheus.NewRegistry()
	n := hookstest.NewTenant(t)
	return &yard{n, registry, n.Reconciler(t, registry)}
}

// reconcile makes both passes and returns the findings.
func (y *yard) reconcile(t *testing.T) []reconcile.Result {
	t.Helper()
	return hookstest.Findings(t, y.r, func(ctx context.Context) error {
		return errors.Join(y.r.Reconcile(ctx), y.r.TakeInventory(ctx))
	})
}

func (y *yard) metric(t *testing.T, name string, kind reconcile.Kind) (n int) {
	t.Helper()
	families, err := y.registry.Gather()
	stack.Must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == string(kind) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	t.Errorf("%s{kind=%q} is not told", name, kind)
	return 0
}

// A planted disorder says what is found of it and what must be true once it is repaired.
type planted struct {
	upload   uuid.UUID
	key      string
	repaired func(t *testing.T)
}

// disorders plant one of each kind.
func (y *yard) disorders() map[reconcile.Kind]func(t *testing.T) planted {
	return map[reconcile.Kind]func(t *testing.T) planted{
		reconcile.InterruptedFinish: y.cutOff,
		reconcile.IdleUpload:        y.idle,
		reconcile.MissingJob:        y.withoutJob,
		reconcile.AbandonedJob:      y.deadJob,
		reconcile.OrphanedTail:      y.orphanTail,
		reconcile.OrphanedMultipart: y.orphanMultipart,
		reconcile.OrphanedObject:    y.orphanObject,
		reconcile.UnknownMultipart:  y.unknownMultipart,
		reconcile.UnknownObject:     y.unknownObject,
		reconcile.LostObject:        y.lostObject,
		reconcile.LostThumbnail:     y.lostThumbnail,
		reconcile.QuotaDrift:        y.drift,
	}
}

// The server died after the last part was recorded and before the multipart upload was completed.
func (y *yard) cutOff(t *testing.T) planted {
	id, _ := y.Begin(t)
	key := y.Keys(id).Original(7)
	multipart, etag := y.Multipart(t, key, hookstest.Content)
	sum := sha256.New()
	sum.Write(hookstest.Content)
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	stack.Must(t, err)
	y.Exec(t, `update parts set size = 10, etag = $2 where upload_id = $1`, id, etag)
	y.Exec(t, `update contents set received = 10, object_key = $2, multipart_id = $3, hash_state = $4 where upload_id = $1`, id, key, multipart, state)
	stack.Must(t, y.abortAllBut(t, id, multipart))
	return planted{upload: id, repaired: func(t *testing.T) {
		u := y.Upload(t, y.Ctx, id)
		if u.Status != storage.Uploaded || *u.ObjectKey != key || !bytes.Equal(u.SHA256, sum.Sum(nil)) {
			t.Errorf("got %+v", u)
		}
		y.WantObject(t, key, true)
		y.WantJobs(t, id, 1)
	}}
}

func (y *yard) abortAllBut(t *testing.T, id uuid.UUID, multipart string) error {
	for m, err := range y.Bucket.Multiparts(t.Context()) {
		if err != nil {
			return err
		}
		if strings.Contains(m.Key, id.String()) && m.MultipartID != multipart {
			if err := y.Bucket.Abort(t.Context(), m.Key, m.MultipartID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (y *yard) idle(t *testing.T) planted {
	id, _ := y.Begin(t)
	y.Exec(t, `update contents set touched_at = now() - interval '61 minutes', received = 8, tail_size = 3 where upload_id = $1`, id)
	y.Exec(t, `insert into tails values ($1, $2, 5, '567')`, y.ID, id)
	room := y.Room(t, y.Ctx)
	return planted{upload: id, repaired: func(t *testing.T) {
		if u := y.Upload(t, y.Ctx, id); u.Status != storage.Expired {
			t.Errorf("got %+v", u)
		}
		y.WantCount(t, 1, `select count(*) from timeline where upload_id = $1 and event = 'expired'`, id)
		y.WantRoom(t, y.Ctx, room+10)
		y.WantCount(t, 0, `select count(*) from tails where upload_id = $1`, id)
		for _, left := range y.S3(t) {
			if strings.Contains(left, id.String()) {
				t.Errorf("S3 still has %s", left)
			}
		}
	}}
}

func (y *yard) withoutJob(t *testing.T) planted {
	id, _ := y.Finish(t)
	y.Exec(t, `delete from river_job where args->>'upload_id' = $1`, id.String())
	return planted{upload: id, repaired: func(t *testing.T) {
		y.WantJobs(t, id, 1)
	}}
}

// The worker was killed on the last attempt, and River gave the job up.
func (y *yard) deadJob(t *testing.T) planted {
	id, key := y.GivenUp(t)
	return planted{upload: id, repaired: func(t *testing.T) {
		if u := y.Upload(t, y.Ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonDeadLettered {
			t.Errorf("got %+v", u)
		}
		y.WantCount(t, 1, `select count(*) from dead_letters where upload_id = $1 and retried_at is null and discarded_at is null
			and step = 'scan' and attempts = 3`, id)
		y.WantObject(t, key, true)
	}}
}

// A part holds bytes that a tail holds as well.
func (y *yard) orphanTail(t *testing.T) planted {
	id, _ := y.Begin(t)
	y.Exec(t, `insert into tails values ($1, $2, 3, '34'), ($1, $2, 5, '56')`, y.ID, id)
	y.Exec(t, `update contents set received = 7, tail_size = 2 where upload_id = $1`, id)
	return planted{upload: id, repaired: func(t *testing.T) {
		y.WantCount(t, 5, `select sum(start)::int from tails where upload_id = $1`, id)
	}}
}

// The server died while it cancelled.
func (y *yard) orphanMultipart(t *testing.T) planted {
	id, multipart := y.Begin(t)
	y.Must(t, y.Ctx, func(tx storage.Tx) error { return tx.Move(y.Ctx, id, storage.Transition{Move: storage.MoveCancel}) })
	return planted{upload: id, key: y.Keys(id).Original(1), repaired: func(t *testing.T) {
		if slices.ContainsFunc(y.S3(t), func(s string) bool { return strings.Contains(s, multipart) }) {
			t.Error("the multipart upload is still there")
		}
	}}
}

// A holder that had frozen wrote the whole object when another had already.
func (y *yard) orphanObject(t *testing.T) planted {
	id, mine := y.Finish(t)
	late := y.Keys(id).Original(99)
	y.Put(t, late)
	return planted{upload: id, key: late, repaired: func(t *testing.T) {
		y.WantObject(t, late, false)
		y.WantObject(t, mine, true)
	}}
}

func (y *yard) unknownObject(t *testing.T) planted {
	id := uuid.Must(uuid.NewV7())
	key := y.Keys(id).Original(3)
	y.Put(t, key)
	return planted{key: key}
}

func (y *yard) unknownMultipart(t *testing.T) planted {
	key := y.Keys(uuid.Must(uuid.NewV7())).Original(3)
	y.Multipart(t, key, hookstest.Content)
	return planted{key: key}
}

func (y *yard) lostObject(t *testing.T) planted {
	id, original, _ := y.Complete(t)
	stack.Must(t, y.Bucket.Delete(y.Ctx, original))
	room := y.Room(t, y.Ctx)
	return planted{upload: id, key: original, repaired: func(t *testing.T) {
		if u := y.Upload(t, y.Ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonLost {
			t.Errorf("got %+v", u)
		}
		y.WantRoom(t, y.Ctx, room+10)
	}}
}

func (y *yard) lostThumbnail(t *testing.T) planted {
	id, _, picture := y.Complete(t)
	stack.Must(t, y.Bucket.Delete(y.Ctx, picture))
	return planted{upload: id, key: picture}
}

func (y *yard) drift(t *testing.T) planted {
	room := y.Room(t, y.Ctx)
	y.Exec(t, `update tenants set charged_bytes = charged_bytes + 70`)
	return planted{repaired: func(t *testing.T) {
		y.WantRoom(t, y.Ctx, room)
	}}
}

// Each kind is planted among uploads with which all is well: it is found, nothing else is, it is repaired and counted, the
// timeline tells of it, and another pass finds nothing.
func TestReconcileEachKind(t *testing.T) {
	t.Parallel()
	for _, kind := range new(reconcile.Reconciler).Kinds(t.Context()) {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			y := newYard(t)
			y.Sound(t)
			p := y.disorders()[kind](t)
			found := y.reconcile(t)
			if len(found) != 1 || found[0].Kind != kind || p.key != "" && found[0].Key != p.key || p.upload != uuid.Nil && found[0].Upload != p.upload {
				t.Fatalf("found %+v, want %s of %s %s", found, kind, p.upload, p.key)
			}
			if p.repaired == nil {
				y.checkLeft(t, found[0], p)
				return
			}
			if found[0].Outcome != reconcile.Repaired {
				t.Errorf("it was %s: %v", found[0].Outcome, found[0].Reason)
			}
			p.repaired(t)
			if again := y.reconcile(t); len(again) != 0 {
				t.Errorf("a second pass found %+v", again)
			}
			y.checkCounted(t, kind, 1, 1)
			entries := y.Count(t, `select count(*) from timeline where event = 'repaired' and detail = jsonb_build_object('kind', $1::text)
				and upload_id = $2`, kind, p.upload)
			if p.upload != uuid.Nil && entries != 1 {
				t.Errorf("the timeline tells of it %d times", entries)
			}
		})
	}
}

func (y *yard) checkLeft(t *testing.T, found reconcile.Result, p planted) {
	t.Helper()
	if found.Outcome != reconcile.Left || found.Reason == nil {
		t.Errorf("it was %s: %v", found.Outcome, found.Reason)
	}
	if found.Kind == reconcile.UnknownObject {
		y.WantObject(t, p.key, true)
	}
	if again := y.reconcile(t); len(again) != 1 {
		t.Errorf("a second pass found %+v", again)
	}
	y.checkCounted(t, found.Kind, 2, 0)
	if n := y.metric(t, "tramo_reconcile_unrepaired", found.Kind); n != 1 {
		t.Errorf("%d are unrepaired", n)
	}
}

func (y *yard) checkCounted(t *testing.T, kind reconcile.Kind, found, repaired int) {
	t.Helper()
	if f, r, x := y.metric(t, "tramo_reconcile_found_total", kind), y.metric(t, "tramo_reconcile_repaired_total", kind),
		y.metric(t, "tramo_reconcile_failed_total", kind); f != found || r != repaired || x != 0 {
		t.Errorf("counted: %d found, %d repaired, %d failed", f, r, x)
	}
}
