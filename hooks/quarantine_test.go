package hooks_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

func (y *yard) quarantineOf(t *testing.T) *hooks.Quarantine {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := queue.New(y.API, log)
	must(t, err)
	return &hooks.Quarantine{DB: y.API, Queue: q, Log: log}
}

// quarantine makes a completed upload one that a rescan has found, with its object where that belongs.
func (y *yard) quarantine(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	id, original, picture := y.complete(t)
	must(t, y.Worker.InTenant(y.ctx, func(tx storage.Tx) error {
		var fence int64
		err := tx.QueryRow(y.ctx, `
			with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
			insert into upload_leases select $1, $2, id, nextval('fences') from me returning fence`, y.tenant, id).Scan(&fence)
		if err != nil {
			return err
		}
		key = y.keys(id).Quarantine(fence)
		_, err = tx.Quarantine(y.ctx, id, storage.Quarantining{
			Status: storage.Completed, Failure: storage.Failure{Reason: storage.ReasonInfected, Detail: "EICAR"},
			Scan: storage.Scan{Verdict: storage.ScanInfected, Signature: "EICAR"}, Fence: fence, From: original, To: key,
		})
		return err
	}))
	y.exec(t, `delete from upload_leases where upload_id = $1`, id)
	must(t, y.bucket.Copy(y.ctx, original, key, int64(len(content))))
	must(t, y.bucket.Delete(y.ctx, original))
	must(t, y.bucket.Delete(y.ctx, picture))
	return id, key
}

// What a crash leaves of a move, into quarantine or out of it, is found and deleted: the copy that no row names, the
// object that no row names any more, its pictures, and the half-done copy of a large one. What a row names is left alone in
// quarantine as elsewhere, a second pass finds nothing, and what is unknown there is left for a person.
func TestReconcilerKnowsQuarantine(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.neighbours(t)
	kept, keptKey := y.quarantine(t)
	if found := y.reconcile(t); len(found) != 0 {
		t.Fatalf("found %+v", found)
	}
	whole, original, picture := y.complete(t)
	unknown := y.keys(uuid.Must(uuid.NewV7())).Quarantine(1)
	want := []string{
		y.keys(kept).Original(1), y.keys(kept).Thumbnail(160), y.keys(kept).Quarantine(99), // of one in quarantine
		y.keys(whole).Quarantine(5), // of one that was not moved after all, or is back
	}
	for _, key := range append(want, unknown) {
		y.put(t, key)
	}
	y.multipart(t, y.keys(whole).Quarantine(6), content)
	var deleted []string
	for _, f := range y.reconcile(t) {
		switch {
		case f.Key == unknown && f.Kind == hooks.KindUnknownObject && f.Outcome == hooks.Left:
		case f.Kind == hooks.KindUnownedObject && f.Outcome == hooks.Repaired:
			deleted = append(deleted, f.Key)
		case f.Kind == hooks.KindUnownedMultipart && f.Outcome == hooks.Repaired && f.Key == y.keys(whole).Quarantine(6):
			deleted = append(deleted, f.Key)
		default:
			t.Errorf("found %+v", f)
		}
	}
	want = append(want, y.keys(whole).Quarantine(6))
	slices.Sort(want)
	slices.Sort(deleted)
	if !slices.Equal(deleted, want) {
		t.Errorf("deleted are %q, want %q", deleted, want)
	}
	for _, key := range []string{keptKey, original, picture, unknown} {
		y.wantObject(t, key, true)
	}
	if found := y.reconcile(t); len(found) != 1 { // the unknown one
		t.Errorf("a second pass finds %+v", found)
	}
}

// The database is older than the bucket: what was moved since, into quarantine or out of it, is under a key that the rows do
// not name. It is the only copy, and stays.
func TestReconcilerLeavesTheOnlyCopy(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.complete(t) // or all would be lost, which is the wrong bucket
	in, original, _ := y.complete(t)
	must(t, y.bucket.Delete(y.ctx, original))
	out, key := y.quarantine(t)
	must(t, y.bucket.Delete(y.ctx, key))
	for _, left := range []string{y.keys(in).Quarantine(5), y.keys(out).Original(5)} {
		y.put(t, left)
		found := 0
		for _, f := range y.reconcile(t) {
			if f.Key == left && f.Kind == hooks.KindUnownedObject && f.Outcome == hooks.Left {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s was found %d times", left, found)
		}
		y.wantObject(t, left, true)
	}
}

// While a worker moves an object, under the upload's lease, its copy is nobody's finding.
func TestReconcilerLeavesMoves(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id, original, _ := y.complete(t)
	y.put(t, y.keys(id).Quarantine(7))
	y.exec(t, `with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
		insert into upload_leases select $1, $2, id, 7 from me`, y.tenant, id)
	if found := y.reconcile(t); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	y.wantObject(t, original, true)
	y.wantObject(t, y.keys(id).Quarantine(7), true)
}

// Whatever is in quarantine goes with its upload, its user and its tenant.
func TestErasureEmptiesQuarantine(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*testing.T, *yard, uuid.UUID){
		"upload": func(t *testing.T, y *yard, id uuid.UUID) {
			t.Helper()
			_, err := y.quarantineOf(t).Erase(y.manage(t.Context(), "olga", tenant.Admin), id)
			must(t, err)
			y.put(t, y.keys(id).Quarantine(8)) // which no row names
			y.multipart(t, y.keys(id).Quarantine(9), content)
		},
		"deleted": func(t *testing.T, y *yard, id uuid.UUID) {
			t.Helper()
			must(t, y.finisher.Delete(y.ctx, id))
			y.exec(t, `update uploads set purge_at = now() where id = $1`, id)
		},
		"user": func(t *testing.T, y *yard, _ uuid.UUID) {
			t.Helper()
			_, err := y.erasures(t).Request(y.manage(t.Context(), "jefa", tenant.Constructora), hooks.EraseRequest{User: "ana"})
			must(t, err)
		},
		"tenant": func(t *testing.T, y *yard, _ uuid.UUID) {
			t.Helper()
			y.put(t, y.keys(uuid.Must(uuid.NewV7())).Quarantine(1)) // of which no row is known
			e, err := y.erasures(t).Request(y.manage(t.Context(), "one", tenant.Admin), hooks.EraseRequest{Tenant: true})
			must(t, err)
			_, err = y.erasures(t).Approve(y.manage(t.Context(), "two", tenant.Admin), e.ID)
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t)
			other := y.neighbour(t)
			_, theirs := other.quarantine(t)
			id, _ := y.quarantine(t)
			ask(t, y, id)
			must(t, y.erase(t))
			must(t, y.erase(t))
			for _, o := range y.s3(t) {
				if strings.Contains(o, y.tenant.String()) {
					t.Errorf("S3 still has %s", o)
				}
			}
			if n := y.count(t, `select (select count(*) from scans where tenant_id = $1) + (select count(*) from uploads where tenant_id = $1)`, y.tenant); n != 0 {
				t.Errorf("%d rows are left", n)
			}
			other.wantObject(t, theirs, true)
		})
	}
}

// Who may look into quarantine and decide: an admin of the installation with a token for all projects. Each decision is
// audited, and one is possible as long as the upload is in quarantine.
func TestQuarantineIsForAdmins(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id, _ := y.quarantine(t)
	clean, _, _ := y.complete(t)
	q := y.quarantineOf(t)
	admin := y.manage(t.Context(), "olga", tenant.Admin)
	narrow := tenant.With(t.Context(), tenant.Identity{Tenant: y.tenant, User: "olga", Role: tenant.Admin, Projects: []string{"default"}})
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		ctx := y.manage(t.Context(), "x", role)
		_, err := q.List(ctx, uuid.Nil, 10)
		wantErr(t, err, hooks.ErrForbidden)
		wantErr(t, q.Release(ctx, id, "x"), hooks.ErrForbidden)
		_, err = q.Erase(ctx, id)
		wantErr(t, err, hooks.ErrForbidden)
	}
	wantErr(t, q.Release(narrow, id, "x"), hooks.ErrForbidden)
	for _, reason := range []string{"", " \n", "a\x00", strings.Repeat("x", 1001), "\xff"} {
		wantErr(t, q.Release(admin, id, reason), hooks.ErrBadReason)
	}
	wantErr(t, q.Release(admin, clean, "x"), hooks.ErrNotQuarantined)
	wantErr(t, q.Release(admin, uuid.New(), "x"), storage.ErrNotFound)
	_, err := q.Erase(admin, clean)
	wantErr(t, err, hooks.ErrNotQuarantined)
	stranger := y.neighbour(t).manage(t.Context(), "olga", tenant.Admin)
	wantErr(t, q.Release(stranger, id, "x"), storage.ErrNotFound)
	_, err = q.Erase(stranger, id)
	wantErr(t, err, storage.ErrNotFound)
	found, err := q.List(admin, uuid.Nil, 10)
	must(t, err)
	if len(found) != 1 || found[0].ID != id || *found[0].ScanSignature != "EICAR" {
		t.Errorf("in quarantine are %+v", found)
	}

	must(t, q.Release(admin, id, "a false alarm"))
	if got := y.upload(t, y.ctx, id); got.Status != storage.Uploaded || *got.ReleasedBy != "olga" || *got.ReleaseReason != "a false alarm" || got.ReleasedAt == nil {
		t.Errorf("the upload is %+v", got)
	}
	if n := y.count(t, jobsOf+` and state = 'available'`, id.String()); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
	wantErr(t, q.Release(admin, id, "again"), hooks.ErrNotQuarantined)
	if n := y.count(t, `select count(*) from audit where action = 'upload.quarantine.release' and actor = 'olga' and subject = $1
		and detail->>'reason' = 'a false alarm' and detail->>'signature' = 'EICAR'`, id.String()); n != 1 {
		t.Errorf("it is audited %d times", n)
	}
}

// A file that was sent again under its client id stays in quarantine, or there would be two of them.
func TestReleaseOfWhatWasSentAgain(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id, key := y.quarantine(t)
	again := y.admit(t)
	y.exec(t, `update uploads set client_id = 'IMG_1' where id in ($1, $2)`, id, again)
	admin := y.manage(t.Context(), "olga", tenant.Admin)
	wantErr(t, y.quarantineOf(t).Release(admin, id, "x"), hooks.ErrClientIDTaken)
	if got := y.upload(t, y.ctx, id); got.Status != storage.Failed || got.ReleasedBy != nil || *got.ObjectKey != key {
		t.Errorf("the upload is %+v", got)
	}
}

// Rescans are asked for by when uploads were completed and by the signatures that were known, of one tenant and once for
// each upload, in pages.
func TestRequestRescans(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	other := y.neighbour(t)
	y.exec(t, `delete from river_job`)
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	y.exec(t, `insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes, status, completed_at, deleted_at, purge_at)
		select $1, gen_random_uuid(), 'ana', 'default', '{}', 10, 0, 'completed',
			'2026-11-01Z'::timestamptz + n % 10 * interval '1 day', case when n > 1050 then now() end, case when n > 1050 then now() end
		from generate_series(0, 1099) n`, y.tenant)
	y.exec(t, `insert into scans (tenant_id, upload_id, verdict, signatures) select tenant_id, id, 'clean', 100
		from uploads where tenant_id = $1 and completed_at = '2026-11-03Z'`, y.tenant)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := queue.New(y.Worker, log)
	must(t, err)
	request := func(dry bool, r storage.Rescan) int {
		t.Helper()
		n, err := (&hooks.Rescans{DB: y.Worker, Queue: q, DryRun: dry}).Request(t.Context(), y.tenant, r)
		must(t, err)
		return n
	}
	const jobs = `select count(*) from river_job where kind = 'rescan_upload'`
	for name, c := range map[string]struct {
		which storage.Rescan
		want  int
	}{
		"all":             {storage.Rescan{Since: day(1)}, 1051},
		"since":           {storage.Rescan{Since: day(10)}, 105},
		"until":           {storage.Rescan{Since: day(2), Until: day(4)}, 210},
		"older":           {storage.Rescan{Since: day(3), Until: day(4), Signatures: 100}, 0},
		"older than next": {storage.Rescan{Since: day(3), Until: day(4), Signatures: 101}, 105},
		"unknown":         {storage.Rescan{Since: day(4), Until: day(5), Signatures: 1}, 105},
	} {
		if got := request(true, c.which); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if n := y.count(t, jobs); n != 0 {
		t.Errorf("a dry run enqueues %d", n)
	}
	if first, second := request(false, storage.Rescan{Since: day(10)}), request(false, storage.Rescan{Since: day(1)}); first != 105 || second != 1051-105 {
		t.Errorf("%d, then %d", first, second)
	}
	if n := y.count(t, jobs); n != 1051 {
		t.Errorf("%d are enqueued", n)
	}
	if n := y.count(t, jobs+` and args->>'tenant_id' = $1`, other.tenant.String()); n != 0 {
		t.Errorf("%d of another tenant's are enqueued", n)
	}
	if n := y.count(t, `select sum((detail->>'uploads')::int) from audit where action = 'upload.rescan' and actor = 'rescan' and tenant_id = $1`, y.tenant); n != 1051 {
		t.Errorf("%d are audited", n)
	}
}
