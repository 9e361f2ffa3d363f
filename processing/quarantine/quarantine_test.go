package quarantine_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

func serviceOf(t *testing.T, n *hookstest.Tenant) *quarantine.Service {
	t.Helper()
	log := stack.Log(t, slog.LevelInfo)
	q, err := queue.New(n.API, log)
	stack.Must(t, err)
	return &quarantine.Service{DB: n.API, Queue: q, Log: log}
}

// Who may look into quarantine and decide: an admin of the installation with a token for all projects. Each decision is
// audited, and one is possible as long as the upload is in quarantine.
func TestQuarantineIsForAdmins(t *testing.T) {
	t.Parallel()
	n := hookstest.NewTenant(t)
	id, _ := n.Quarantine(t)
	clean, _, _ := n.Complete(t)
	q := serviceOf(t, n)
	admin := n.As(t.Context(), "olga", tenant.Admin)
	narrow := tenant.With(t.Context(), tenant.Identity{Tenant: n.ID, User: "olga", Role: tenant.Admin, Projects: []string{"default"}})
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		ctx := n.As(t.Context(), "x", role)
		_, err := q.List(ctx, uuid.Nil, 10)
		stack.WantErr(t, err, tenant.ErrForbidden)
		stack.WantErr(t, q.Release(ctx, id, "x"), tenant.ErrForbidden)
	}
	stack.WantErr(t, q.Release(narrow, id, "x"), tenant.ErrForbidden)
	for _, reason := range []string{"", " \n", "a\x00", strings.Repeat("x", 1001), "\xff"} {
		stack.WantErr(t, q.Release(admin, id, reason), quarantine.ErrBadReason)
	}
	stack.WantErr(t, q.Release(admin, clean, "x"), quarantine.ErrNotQuarantined)
	stack.WantErr(t, q.Release(admin, uuid.New(), "x"), storage.ErrNotFound)
	stranger := n.AddTenant(t).As(t.Context(), "olga", tenant.Admin)
	stack.WantErr(t, q.Release(stranger, id, "x"), storage.ErrNotFound)
	found, err := q.List(admin, uuid.Nil, 10)
	stack.Must(t, err)
	if len(found) != 1 || found[0].ID != id || *found[0].ScanSignature != "EICAR" {
		t.Errorf("in quarantine are %+v", found)
	}

	stack.Must(t, q.Release(admin, id, "a false alarm"))
	if got := n.Upload(t, n.Ctx, id); got.Status != storage.Uploaded || *got.ReleasedBy != "olga" || *got.ReleaseReason != "a false alarm" || got.ReleasedAt == nil {
		t.Errorf("the upload is %+v", got)
	}
	if n := n.Jobs(t, id); n != 2 { // and the one that has ended
		t.Errorf("there are %d jobs", n)
	}
	stack.WantErr(t, q.Release(admin, id, "again"), quarantine.ErrNotQuarantined)
	n.WantCount(t, 1, `select count(*) from audit where action = 'upload.quarantine.release' and actor = 'olga' and subject = $1
		and detail->>'reason' = 'a false alarm' and detail->>'signature' = 'EICAR'`, id.String())
}

// A file that was sent again under its client id stays in quarantine, or there would be two of them.
func TestReleaseOfWhatWasSentAgain(t *testing.T) {
	t.Parallel()
	n := hookstest.NewTenant(t)
	id, key := n.Quarantine(t)
	again := n.Admit(t)
	n.Exec(t, `update uploads set client_id = 'IMG_1' where id in ($1, $2)`, id, again)
	admin := n.As(t.Context(), "olga", tenant.Admin)
	stack.WantErr(t, serviceOf(t, n).Release(admin, id, "x"), storage.ErrDuplicateClientID)
	if got := n.Upload(t, n.Ctx, id); got.Status != storage.Failed || got.ReleasedBy != nil || *got.ObjectKey != key {
		t.Errorf("the upload is %+v", got)
	}
}

// Rescans are asked for by when uploads were completed and by the signatures that were known, of one tenant and once for
// each upload, in pages.
func TestRequestRescans(t *testing.T) {
	t.Parallel()
	n := hookstest.NewTenant(t)
	other := n.AddTenant(t)
	other.Sound(t)
	n.Exec(t, `delete from river_job`)
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	n.Exec(t, `insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes, status, completed_at, deleted_at, purge_at)
		select $1, gen_random_uuid(), 'ana', 'default', '{}', 10, 0, 'completed',
			'2026-11-01Z'::timestamptz + n % 10 * interval '1 day', case when n > 1050 then now() end, case when n > 1050 then now() end
		from generate_series(0, 1099) n`, n.ID)
	n.Exec(t, `insert into scans (tenant_id, upload_id, verdict, signatures) select tenant_id, id, 'clean', 100
		from uploads where tenant_id = $1 and completed_at = '2026-11-03Z'`, n.ID)
	log := stack.Log(t, slog.LevelInfo)
	q, err := queue.New(n.Worker, log)
	stack.Must(t, err)
	request := func(dry bool, r quarantine.Rescan) int {
		t.Helper()
		n, err := (&quarantine.Rescans{DB: n.Worker, Queue: q, DryRun: dry}).Request(t.Context(), n.ID, r)
		stack.Must(t, err)
		return n
	}
	const jobs = `select count(*) from river_job where kind = 'rescan_upload'`
	for name, c := range map[string]struct {
		which quarantine.Rescan
		want  int
	}{
		"all":             {quarantine.Rescan{Since: day(1)}, 1051},
		"since":           {quarantine.Rescan{Since: day(10)}, 105},
		"until":           {quarantine.Rescan{Since: day(2), Until: day(4)}, 210},
		"older":           {quarantine.Rescan{Since: day(3), Until: day(4), Signatures: 100}, 0},
		"older than next": {quarantine.Rescan{Since: day(3), Until: day(4), Signatures: 101}, 105},
		"unknown":         {quarantine.Rescan{Since: day(4), Until: day(5), Signatures: 1}, 105},
	} {
		stack.Want(t, request(true, c.which), c.want, "%s", name)
	}
	n.WantCount(t, 0, jobs)
	if first, second := request(false, quarantine.Rescan{Since: day(10)}), request(false, quarantine.Rescan{Since: day(1)}); first != 105 || second != 1051-105 {
		t.Errorf("%d, then %d", first, second)
	}
	n.WantCount(t, 1051, jobs)
	n.WantCount(t, 0, jobs+` and args->>'tenant_id' = $1`, other.ID.String())
	n.WantCount(t, 1051, `select sum((detail->>'uploads')::int) from audit where action = 'upload.rescan' and actor = 'rescan' and tenant_id = $1`, n.ID)
}

// An upload in another status, or whose object is elsewhere, is not quarantined, nor is one twice.
func TestPlaceIsGuarded(t *testing.T) {
	t.Parallel()
	n := hookstest.NewTenant(t)
	id, key := n.Finish(t)
	try := func(p quarantine.Placement) error {
		return n.Worker.InTenant(n.Ctx, func(tx storage.Tx) error {
			_, err := quarantine.Place(n.Ctx, tx, id, p)
			return err
		})
	}
	scan := quarantine.Scan{Verdict: storage.ScanInfected, Signature: "X"}
	p := quarantine.Placement{From: storage.Processing, Failure: scan.Failure(), Scan: scan, Fence: 7, Key: key, New: n.Keys(id).Quarantine(7)}
	stack.WantErr(t, try(p), storage.ErrFenced)
	n.Exec(t, `with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
		insert into upload_leases select tenant_id, uploads.id, me.id, 7 from uploads, me`)
	stack.WantErr(t, try(p), storage.ErrWrongStatus) // it is uploaded
	p.From = storage.Uploaded
	if err := try(p); err == nil {
		t.Error("an upload that is uploaded is quarantined")
	}
	n.Exec(t, `update uploads set status = 'completed', completed_at = now()`)
	p.From = storage.Processing
	stack.WantErr(t, try(p), storage.ErrWrongStatus)
	p.From, p.Key = storage.Completed, n.Keys(id).Original(2)
	stack.WantErr(t, try(p), storage.ErrWrongStatus)
	p.Key = key
	stack.Must(t, try(p))
	stack.WantErr(t, try(p), storage.ErrWrongStatus)
	n.WantCount(t, 1, `select count(*) from audit where action = 'upload.quarantine'`)
	n.MustWork(t, n.Ctx, func(tx storage.Tx) error {
		stack.WantErr(t, quarantine.RecordRescan(n.Ctx, tx, id, quarantine.Scan{Verdict: storage.ScanClean}), storage.ErrWrongStatus)
		return nil
	})
}
