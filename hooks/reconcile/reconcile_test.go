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

// A site is a tenant with uploads to repair, and a reconciler.
type site struct {
	*hookstest.Tenant
	registry *prometheus.Registry
	r        *reconcile.Reconciler
}

func newSite(t *testing.T) *site {
	t.Helper()
	registry := prometheus.NewRegistry()
	n := hookstest.NewTenant(t)
	return &site{n, registry, n.Reconciler(t, registry)}
}

// reconcile makes both passes and returns the findings.
func (s *site) reconcile(t *testing.T) []reconcile.Result {
	t.Helper()
	return hookstest.Findings(t, s.r, func(ctx context.Context) error {
		return errors.Join(s.r.Reconcile(ctx), s.r.TakeInventory(ctx))
	})
}

func (s *site) metric(t *testing.T, name string, kind reconcile.Kind) (n int) {
	t.Helper()
	families, err := s.registry.Gather()
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

// A disorder says what is found of it, and what must be true once it is repaired.
type disorder struct {
	upload   uuid.UUID
	key      string
	repaired func(t *testing.T)
}

// disorders make one of each kind.
func (s *site) disorders() map[reconcile.Kind]func(t *testing.T) disorder {
	return map[reconcile.Kind]func(t *testing.T) disorder{
		reconcile.InterruptedFinish: s.cutOff,
		reconcile.IdleUpload:        s.idle,
		reconcile.EndedUpload:       s.ended,
		reconcile.MissingJob:        s.withoutJob,
		reconcile.AbandonedJob:      s.deadJob,
		reconcile.OrphanedTail:      s.orphanTail,
		reconcile.OrphanedMultipart: s.orphanMultipart,
		reconcile.OrphanedObject:    s.orphanObject,
		reconcile.UnknownMultipart:  s.unknownMultipart,
		reconcile.UnknownObject:     s.unknownObject,
		reconcile.LostObject:        s.lostObject,
		reconcile.LostThumbnail:     s.lostThumbnail,
		reconcile.QuotaDrift:        s.drift,
	}
}

// The server died after the last part was recorded and before the multipart upload was completed.
func (s *site) cutOff(t *testing.T) disorder {
	id, _ := s.Begin(t)
	key := s.Keys(id).Original(7)
	multipart, etag := s.Multipart(t, key, hookstest.Content)
	sum := sha256.New()
	sum.Write(hookstest.Content)
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	stack.Must(t, err)
	s.Exec(t, `update parts set size = 10, etag = $2 where upload_id = $1`, id, etag)
	s.Exec(t, `update contents set received = 10, object_key = $2, multipart_id = $3, hash_state = $4 where upload_id = $1`, id, key, multipart, state)
	stack.Must(t, s.abortAllBut(t, id, multipart))
	return disorder{upload: id, repaired: func(t *testing.T) {
		u := s.Upload(t, s.Ctx, id)
		if u.Status != storage.Uploaded || *u.ObjectKey != key || !bytes.Equal(u.SHA256, sum.Sum(nil)) {
			t.Errorf("got %+v", u)
		}
		s.WantObject(t, key, true)
		s.WantJobs(t, id, 1)
	}}
}

func (s *site) abortAllBut(t *testing.T, id uuid.UUID, multipart string) error {
	for m, err := range s.Bucket.Multiparts(t.Context()) {
		if err != nil {
			return err
		}
		if strings.Contains(m.Key, id.String()) && m.MultipartID != multipart {
			if err := s.Bucket.Abort(t.Context(), m.Key, m.MultipartID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *site) idle(t *testing.T) disorder {
	id, _ := s.Begin(t)
	s.Exec(t, `update contents set touched_at = now() - interval '61 minutes', received = 8, tail_size = 3 where upload_id = $1`, id)
	s.Exec(t, `insert into tails values ($1, $2, 5, '567')`, s.ID, id)
	room := s.Room(t, s.Ctx)
	return disorder{upload: id, repaired: func(t *testing.T) {
		stack.Want(t, s.Upload(t, s.Ctx, id).Status, storage.Expired, "status")
		s.WantCount(t, 1, `select count(*) from timeline where upload_id = $1 and event = 'expired'`, id)
		s.WantRoom(t, s.Ctx, room+10)
		s.WantCount(t, 0, `select count(*) from tails where upload_id = $1`, id)
		for _, left := range s.S3(t) {
			if strings.Contains(left, id.String()) {
				t.Errorf("S3 still has %s", left)
			}
		}
	}}
}

func (s *site) withoutJob(t *testing.T) disorder {
	id, _ := s.Finish(t)
	s.Exec(t, `delete from river_job where args->>'upload_id' = $1`, id.String())
	return disorder{upload: id, repaired: func(t *testing.T) {
		s.WantJobs(t, id, 1)
	}}
}

// The worker was killed on the last attempt, and River gave the job up.
func (s *site) deadJob(t *testing.T) disorder {
	id, key := s.GivenUp(t)
	return disorder{upload: id, repaired: func(t *testing.T) {
		if u := s.Upload(t, s.Ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonDeadLettered {
			t.Errorf("got %+v", u)
		}
		s.WantCount(t, 1, `select count(*) from dead_letters where upload_id = $1 and retried_at is null and discarded_at is null
			and step = 'scan' and attempts = 3`, id)
		s.WantObject(t, key, true)
	}}
}

// A part holds bytes that a tail holds as well.
func (s *site) orphanTail(t *testing.T) disorder {
	id, _ := s.Begin(t)
	s.Exec(t, `insert into tails values ($1, $2, 3, '34'), ($1, $2, 5, '56')`, s.ID, id)
	s.Exec(t, `update contents set received = 7, tail_size = 2 where upload_id = $1`, id)
	return disorder{upload: id, repaired: func(t *testing.T) {
		s.WantCount(t, 5, `select sum(start)::int from tails where upload_id = $1`, id)
	}}
}

// The server died while it cancelled, or S3 was away: the upload is charged until S3 has nothing more of it.
func (s *site) ended(t *testing.T) disorder {
	id, multipart := s.Begin(t)
	s.Must(t, s.Ctx, func(tx storage.Tx) error { return tx.Move(s.Ctx, id, storage.Transition{Move: storage.MoveCancel}) })
	unnamed := s.Keys(id).Original(99) // of a holder that died before
	s.Put(t, unnamed)
	room := s.Room(t, s.Ctx)
	return disorder{upload: id, repaired: func(t *testing.T) {
		s.WantRoom(t, s.Ctx, room+10)
		for _, left := range s.S3(t) {
			if strings.Contains(left, multipart) || strings.Contains(left, unnamed) {
				t.Errorf("S3 still has %s", left)
			}
		}
	}}
}

// A holder that had frozen stored a part of an upload that was cancelled and refunded meanwhile.
func (s *site) orphanMultipart(t *testing.T) disorder {
	id, multipart := s.Begin(t)
	s.Must(t, s.Ctx, func(tx storage.Tx) error {
		if err := tx.Move(s.Ctx, id, storage.Transition{Move: storage.MoveCancel}); err != nil {
			return err
		}
		_, err := storage.Release(s.Ctx, tx, []uuid.UUID{id})
		return err
	})
	return disorder{upload: id, key: s.Keys(id).Original(1), repaired: func(t *testing.T) {
		if slices.ContainsFunc(s.S3(t), func(key string) bool { return strings.Contains(key, multipart) }) {
			t.Error("the multipart upload is still there")
		}
	}}
}

// A holder that had frozen wrote the whole object when another had already.
func (s *site) orphanObject(t *testing.T) disorder {
	id, mine := s.Finish(t)
	late := s.Keys(id).Original(99)
	s.Put(t, late)
	return disorder{upload: id, key: late, repaired: func(t *testing.T) {
		s.WantObject(t, late, false)
		s.WantObject(t, mine, true)
	}}
}

func (s *site) unknownObject(t *testing.T) disorder {
	id := uuid.Must(uuid.NewV7())
	key := s.Keys(id).Original(3)
	s.Put(t, key)
	return disorder{key: key}
}

func (s *site) unknownMultipart(t *testing.T) disorder {
	key := s.Keys(uuid.Must(uuid.NewV7())).Original(3)
	s.Multipart(t, key, hookstest.Content)
	return disorder{key: key}
}

func (s *site) lostObject(t *testing.T) disorder {
	id, original, _ := s.Complete(t)
	stack.Must(t, s.Bucket.Delete(s.Ctx, original))
	room := s.Room(t, s.Ctx)
	return disorder{upload: id, key: original, repaired: func(t *testing.T) {
		if u := s.Upload(t, s.Ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonLost {
			t.Errorf("got %+v", u)
		}
		s.WantRoom(t, s.Ctx, room+10)
	}}
}

func (s *site) lostThumbnail(t *testing.T) disorder {
	id, _, picture := s.Complete(t)
	stack.Must(t, s.Bucket.Delete(s.Ctx, picture))
	return disorder{upload: id, key: picture}
}

func (s *site) drift(t *testing.T) disorder {
	room := s.Room(t, s.Ctx)
	s.Exec(t, `update tenants set charged_bytes = charged_bytes + 70`)
	return disorder{repaired: func(t *testing.T) {
		s.WantRoom(t, s.Ctx, room)
	}}
}

// A disorder of each kind is made among uploads that are in order. It alone is found, it is repaired and counted, the timeline
// has an entry, and another pass finds nothing.
func TestReconcileEachKind(t *testing.T) {
	t.Parallel()
	for _, kind := range new(reconcile.Reconciler).Kinds(t.Context()) {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.Sound(t)
			p := s.disorders()[kind](t)
			found := s.reconcile(t)
			if len(found) != 1 || found[0].Kind != kind || p.key != "" && found[0].Key != p.key || p.upload != uuid.Nil && found[0].Upload != p.upload {
				t.Fatalf("found %+v, want %s of %s %s", found, kind, p.upload, p.key)
			}
			if p.repaired == nil {
				s.checkLeft(t, found[0], p)
				return
			}
			if found[0].Outcome != reconcile.Repaired {
				t.Errorf("it was %s: %v", found[0].Outcome, found[0].Reason)
			}
			p.repaired(t)
			if again := s.reconcile(t); len(again) != 0 {
				t.Errorf("a second pass found %+v", again)
			}
			s.checkCounted(t, kind, 1, 1)
			entries := s.Count(t, `select count(*) from timeline where event = 'repaired' and detail = jsonb_build_object('kind', $1::text)
				and upload_id = $2`, kind, p.upload)
			if p.upload != uuid.Nil && entries != 1 {
				t.Errorf("the timeline tells of it %d times", entries)
			}
		})
	}
}

func (s *site) checkLeft(t *testing.T, found reconcile.Result, p disorder) {
	t.Helper()
	if found.Outcome != reconcile.Left || found.Reason == nil {
		t.Errorf("it was %s: %v", found.Outcome, found.Reason)
	}
	if found.Kind == reconcile.UnknownObject {
		s.WantObject(t, p.key, true)
	}
	if again := s.reconcile(t); len(again) != 1 {
		t.Errorf("a second pass found %+v", again)
	}
	s.checkCounted(t, found.Kind, 2, 0)
	stack.Want(t, s.metric(t, "tramo_reconcile_unrepaired", found.Kind), 1, "number of unrepaired findings")
}

func (s *site) checkCounted(t *testing.T, kind reconcile.Kind, found, repaired int) {
	t.Helper()
	if f, r, x := s.metric(t, "tramo_reconcile_found_total", kind), s.metric(t, "tramo_reconcile_repaired_total", kind),
		s.metric(t, "tramo_reconcile_failed_total", kind); f != found || r != repaired || x != 0 {
		t.Errorf("counted: %d found, %d repaired, %d failed", f, r, x)
	}
}
