package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// makeAll makes one disorder of each kind among uploads that are in order.
func (s *site) makeAll(t *testing.T) map[reconcile.Kind]disorder {
	t.Helper()
	s.Sound(t)
	all := make(map[reconcile.Kind]disorder)
	for kind, add := range s.disorders() {
		if kind != reconcile.QuotaDrift { // last, because it compares the quota with all uploads
			all[kind] = add(t)
		}
	}
	all[reconcile.QuotaDrift] = s.drift(t)
	return all
}

func kindsOf(found []reconcile.Result) (kinds []reconcile.Kind) {
	for _, f := range found {
		kinds = append(kinds, f.Kind)
	}
	slices.Sort(kinds)
	return kinds
}

// allKinds are those of the table, each once.
func allKinds(t *testing.T) []reconcile.Kind {
	t.Helper()
	kinds := new(reconcile.Reconciler).Kinds(t.Context())
	slices.Sort(kinds)
	return kinds
}

// dump is every row of every table, but for those in which processes come and go.
func (s *site) dump(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	tables := []string{}
	rows, err := s.Admin(t).Query(t.Context(), `select tablename from pg_tables where schemaname = 'public' order by 1`)
	stack.Must(t, err)
	for rows.Next() {
		var name string
		stack.Must(t, rows.Scan(&name))
		tables = append(tables, name)
	}
	stack.Must(t, rows.Err())
	for _, name := range tables {
		var content string
		stack.Must(t, s.Admin(t).QueryRow(t.Context(), `select coalesce(string_agg(r::text, E'\n' order by r::text), '') from `+name+` r`).Scan(&content))
		fmt.Fprintf(&all, "%s:\n%s\n", name, content)
	}
	return all.String()
}

// A dry run finds one of each kind and changes nothing: every row and everything in S3 is as before.
func TestReconcileDryRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.makeAll(t)
	rows, things := s.dump(t), s.S3(t)
	s.r.DryRun = true
	found := s.reconcile(t)
	stack.Want(t, kindsOf(found), allKinds(t), "findings")
	for _, f := range found {
		if f.Outcome != reconcile.Planned && f.Outcome != reconcile.Left {
			t.Errorf("%s was %s", f.Kind, f.Outcome)
		}
	}
	stack.Want(t, s.dump(t), rows, "rows")
	stack.Want(t, s.S3(t), things, "what S3 holds")
}

// Nothing that is younger than the grace is repaired. Quota is compared in one snapshot and needs no grace.
func TestReconcileLeavesTheYoung(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.makeAll(t)
	s.r.Expiry, s.r.StuckGrace, s.r.OrphanGrace = 2*time.Hour, time.Hour, time.Hour
	stack.Want(t, kindsOf(s.reconcile(t)), needNoLease, "findings")
}

// needNoLease are repaired in rows that no lease guards.
var needNoLease = []reconcile.Kind{reconcile.QuotaDrift}

// Another process holds the leases of all that is in disorder: nothing of theirs is touched, and the holder is not asked to
// let go. Once they are free, all is repaired.
func TestReconcileLeavesTheHeld(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all := s.makeAll(t)
	leases := lease.NewManager(s.API, "server", 5*time.Second, s.r.Log)
	stack.Must(t, leases.During(t.Context(), func(ctx context.Context) error {
		for _, p := range all {
			if p.upload != uuid.Nil {
				defer s.hold(t, ctx, leases, p.upload)()
			}
		}
		want := append([]reconcile.Kind{reconcile.UnknownMultipart, reconcile.UnknownObject}, needNoLease...)
		slices.Sort(want)
		stack.Want(t, kindsOf(s.reconcile(t)), want, "findings")
		return nil
	}))
	found := s.reconcile(t)
	want := slices.DeleteFunc(allKinds(t), func(k reconcile.Kind) bool { return slices.Contains(needNoLease, k) })
	stack.Want(t, kindsOf(found), want, "findings")
	for _, f := range found {
		if repairable := all[f.Kind].repaired != nil; repairable != (f.Outcome == reconcile.Repaired) {
			t.Errorf("%s was %s: %v", f.Kind, f.Outcome, f.Reason)
		}
	}
}

// hold takes a lease whose holder must not be asked to let go before it is released.
func (s *site) hold(t *testing.T, ctx context.Context, leases *lease.Manager, id uuid.UUID) (release func()) {
	t.Helper()
	ctx = s.As(ctx, "ana", tenant.Empleado)
	lease, err := leases.Acquire(ctx, id, func() { t.Error("the holder was asked to let go") })
	stack.Must(t, err)
	return func() { stack.Must(t, lease.Release(ctx)) }
}

// The lease is taken between finding and repairing: the repair finds that out, leaves the upload alone, and its holder is not
// asked to let go.
func TestReconcileFindsAHolderInBetween(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Sound(t)
	ids := []uuid.UUID{s.cutOff(t).upload, s.idle(t).upload, s.ended(t).upload, s.orphanTail(t).upload, s.orphanMultipart(t).upload, s.orphanObject(t).upload}
	leases := lease.NewManager(s.API, "server", 5*time.Second, s.r.Log)
	before := s.S3(t)
	stack.Must(t, leases.During(t.Context(), func(ctx context.Context) error {
		var held []func()
		defer func() {
			for _, release := range held {
				release()
			}
		}()
		// The first finding of each pass is of another upload. When it is reported, the others have not been treated.
		found := hookstest.Findings(t, s.r, func(ctx context.Context) error {
			return s.r.Between(ctx, func() error {
				for _, id := range ids {
					held = append(held, s.hold(t, ctx, leases, id))
				}
				return nil
			})
		})
		if len(found) != len(ids) {
			t.Errorf("found %v", kindsOf(found))
		}
		for _, f := range found {
			if f.Outcome != reconcile.Left || !errors.Is(f.Reason, lease.ErrHeld) {
				t.Errorf("%s was %s: %v", f.Kind, f.Outcome, f.Reason)
			}
		}
		return nil
	}))
	stack.Want(t, s.S3(t), before, "what S3 holds")
}

// All is in order again between finding and repairing: no repair is made, and no timeline tells of one.
func TestReconcileFindsOrderInBetween(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.makeAll(t)
	other := s.Reconciler(t, prometheus.NewRegistry())
	found := hookstest.Findings(t, s.r, func(ctx context.Context) error {
		return s.r.Between(ctx, func() error {
			for _, f := range hookstest.Findings(t, other, other.BothUnguarded) {
				if f.Outcome == reconcile.Failed {
					t.Errorf("%s failed: %v", f.Kind, f.Reason)
				}
			}
			return nil
		})
	})
	for _, f := range found {
		// S3 reports no error for an object that is absent, and the rows of such an upload name none.
		if f.Outcome == reconcile.Failed || f.Outcome == reconcile.Repaired && f.Kind != reconcile.OrphanedObject && f.Kind != reconcile.OrphanedMultipart {
			t.Errorf("%s was %s: %v", f.Kind, f.Outcome, f.Reason)
		}
	}
}

// An unknown object whose upload exists by the time of its repair is left.
func TestReconcileFindsAnOwnerInBetween(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Sound(t)
	s.r.DeleteUnknown = true
	object, begun, unknown := s.orphanObject(t), s.orphanMultipart(t), s.unknownObject(t)
	stranger, lost := strings.Split(unknown.key, "/")[5], s.lostObject(t)
	before := s.S3(t)
	found := hookstest.Findings(t, s.r, func(ctx context.Context) error {
		return s.r.Between(ctx, func() error {
			s.Exec(t, `update uploads set object_key = $2 where id = $1`, object.upload, object.key)
			s.Exec(t, `update uploads set status = 'uploading' where id = $1`, begun.upload)
			for m, err := range s.Bucket.Multiparts(t.Context()) {
				stack.Must(t, err)
				if m.Key == begun.key {
					s.Exec(t, `update contents set object_key = $2, multipart_id = $3 where upload_id = $1`, begun.upload, m.Key, m.MultipartID)
				}
			}
			s.Exec(t, `insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes) values ($1, $2, 'ana', 'default', '{}', 10, 0)`, s.ID, stranger)
			s.Exec(t, `insert into contents (tenant_id, upload_id) values ($1, $2)`, s.ID, stranger)
			s.Put(t, lost.key)
			return nil
		})
	})
	if len(found) != 4 {
		t.Errorf("found %v", kindsOf(found))
	}
	for _, f := range found {
		stack.Want(t, f.Outcome, reconcile.Left, "outcome of %s", f.Kind)
	}
	if after := s.S3(t); len(after) != len(before)+1 {
		t.Errorf("S3 has changed from\n%v\nto\n%v", before, after)
	}
}

// Four reconcilers at once, none waiting for another, harm nothing: each disorder is repaired, an upload without a job gets
// one, quota is refunded once, and another pass finds nothing but what is left.
func TestReconcilersAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all := s.makeAll(t)
	delete(all, reconcile.QuotaDrift)
	delete(all, reconcile.IdleUpload) // these three compare the free quota with an earlier value
	delete(all, reconcile.EndedUpload)
	delete(all, reconcile.LostObject)
	g, ctx := errgroup.WithContext(t.Context())
	for range 4 {
		r := s.Reconciler(t, prometheus.NewRegistry())
		r.Report = func(res reconcile.Result) {
			if res.Outcome == reconcile.Failed {
				t.Errorf("%s failed: %v", res.Kind, res.Reason)
			}
		}
		g.Go(func() error { return r.Leases.During(ctx, r.BothUnguarded) })
	}
	stack.Must(t, stack.Ended(t, "four reconcilers", g.Wait))
	for _, p := range all {
		if p.repaired != nil {
			p.repaired(t)
		}
	}
	if got, want := kindsOf(s.reconcile(t)), []reconcile.Kind{reconcile.LostThumbnail, reconcile.UnknownMultipart, reconcile.UnknownObject}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

// A holder froze before it wrote, was taken for dead, and wakes after the reconciler has been there: its write counts no more,
// and what it leaves in S3 is removed once the upload has ended.
func TestReconcileBesideAFrozenHolder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Sound(t)
	p := s.idle(t)
	frozen := lease.NewManager(s.API, "server", 5*time.Second, s.r.Log)
	stack.Must(t, frozen.During(t.Context(), func(ctx context.Context) error {
		ctx = s.As(ctx, "ana", tenant.Empleado)
		lease, err := frozen.Acquire(ctx, p.upload, func() {})
		if err != nil {
			return err
		}
		s.Exec(t, `update lease_holders set expires_at = now() - interval '1 second' where replica = 'server'`)
		stack.Want(t, kindsOf(s.reconcile(t)), []reconcile.Kind{reconcile.IdleUpload}, "findings")
		p.repaired(t)
		err = s.API.InTenant(ctx, func(tx storage.Tx) error {
			return tx.Advance(ctx, p.upload, lease.Fence(), storage.Progress{From: 8, To: 10})
		})
		stack.WantErr(t, err, storage.ErrFenced)
		s.Put(t, s.Keys(p.upload).Original(lease.Fence()))
		return nil
	}))
	stack.Want(t, kindsOf(s.reconcile(t)), []reconcile.Kind{reconcile.OrphanedObject}, "findings")
	p.repaired(t)
}

// A backup of the database was restored that is older than what S3 holds. Whole objects that the rows do not name stay, of
// uploads that are unknown now and of those that are thought to be on their way.
func TestReconcileAfterARestoredBackup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Sound(t)
	known := s.Keys(s.Admit(t)).Original(5)
	s.Put(t, known)
	unknown := s.unknownObject(t).key
	begun := s.unknownMultipart(t).key
	for _, f := range s.reconcile(t) {
		if f.Kind != reconcile.UnknownObject && f.Kind != reconcile.UnknownMultipart || f.Outcome != reconcile.Left {
			t.Errorf("%s was %s", f.Kind, f.Outcome)
		}
	}
	s.WantObject(t, known, true)
	s.WantObject(t, unknown, true)
	if !slices.ContainsFunc(s.S3(t), func(key string) bool { return strings.HasPrefix(key, begun) }) {
		t.Error("the multipart upload of an upload that is unknown was aborted")
	}
}

// An admin says that what is unknown may go: it goes, and nothing else does, not even what Tramo cannot have written.
func TestReconcileDeletesUnknown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Sound(t)
	kept := s.S3(t)
	foreign := "tenants/readme.txt"
	s.Put(t, foreign)
	unknown := s.unknownObject(t).key
	s.unknownMultipart(t)
	s.r.DeleteUnknown = true
	if found := s.reconcile(t); len(found) != 3 {
		t.Errorf("found %+v", found)
	}
	s.WantObject(t, unknown, false)
	s.WantObject(t, foreign, true)
	stack.Must(t, s.Bucket.Delete(t.Context(), foreign))
	stack.Want(t, s.S3(t), kept, "what S3 holds")
}

// The reconciler is pointed at the wrong bucket, where nothing is, or at one where much is missing: no upload fails for it,
// until an admin says that it is so.
func TestReconcileDoubtsALargeLoss(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ lost, present int }{"nothing is there": {1, 0}, "much is missing": {11, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			for range c.present {
				s.Finish(t)
			}
			for range c.lost {
				_, key := s.Finish(t)
				stack.Must(t, s.Bucket.Delete(t.Context(), key))
			}
			failed := func() int { return s.Count(t, `select count(*) from uploads where failure_reason = 'lost'`) }
			if found := s.reconcile(t); len(found) != c.lost || failed() != 0 {
				t.Errorf("%d were found and %d failed", len(found), failed())
			}
			s.r.AcceptLoss = true
			if found := s.reconcile(t); len(found) != c.lost || failed() != c.lost {
				t.Errorf("%d were found and %d failed, not %d", len(found), failed(), c.lost)
			}
		})
	}
}

// The inventory is right whatever the number of pages of rows and of S3: more than a page of uploads, in projects whose
// names sort differently with the slash behind them, some with and some without objects.
func TestInventoryOverPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Exec(t, `
		insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes)
		select $1, gen_random_uuid(), 'ana', (array['a', 'a-b', 'a.b', 'a_b', 'A', 'b'])[1 + n % 6], '{}', 10, 0
		from generate_series(1, 1200) n`, s.ID)
	s.Exec(t, `insert into contents (tenant_id, upload_id) select tenant_id, id from uploads`)
	var want, orphans []string
	ids := map[string]bool{}
	for c, err := range reconcile.AllClaims(t.Context(), s.Worker) {
		stack.Must(t, err)
		if ids[c.Upload.String()] {
			t.Fatalf("upload %s came twice", c.Upload)
		}
		ids[c.Upload.String()] = true
		keys := s.Keys(c.Upload)
		keys.Project = c.Project
		want = append(want, keys.Prefix())
		if len(want)%100 == 0 {
			orphans = append(orphans, keys.Original(1))
			s.Put(t, keys.Original(1))
		}
	}
	if len(want) != 1200 || !slices.IsSorted(want) {
		t.Errorf("%d uploads came; in the order of keys: %v", len(want), slices.IsSorted(want))
	}
	s.Exec(t, `update uploads set status = 'cancelled'`)
	var got []string
	for _, f := range s.reconcile(t) {
		got = append(got, f.Key)
	}
	stack.Want(t, got, orphans, "findings")
}
