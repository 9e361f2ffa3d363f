package hooks_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func quarantineOf(t *testing.T, y *hookstest.Tenant) *hooks.Quarantine {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := queue.New(y.API, log)
	stack.Must(t, err)
	return &hooks.Quarantine{DB: y.API, Queue: q, Log: log}
}

// Who may look into quarantine and decide: an admin of the installation with a token for all projects. Each decision is
// audited, and one is possible as long as the upload is in quarantine.
func TestQuarantineIsForAdmins(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	id, _ := y.Quarantine(t)
	clean, _, _ := y.Complete(t)
	q := quarantineOf(t, y)
	admin := y.As(t.Context(), "olga", tenant.Admin)
	narrow := tenant.With(t.Context(), tenant.Identity{Tenant: y.ID, User: "olga", Role: tenant.Admin, Projects: []string{"default"}})
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		ctx := y.As(t.Context(), "x", role)
		_, err := q.List(ctx, uuid.Nil, 10)
		stack.WantErr(t, err, hooks.ErrForbidden)
		stack.WantErr(t, q.Release(ctx, id, "x"), hooks.ErrForbidden)
	}
	stack.WantErr(t, q.Release(narrow, id, "x"), hooks.ErrForbidden)
	for _, reason := range []string{"", " \n", "a\x00", strings.Repeat("x", 1001), "\xff"} {
		stack.WantErr(t, q.Release(admin, id, reason), hooks.ErrBadReason)
	}
	stack.WantErr(t, q.Release(admin, clean, "x"), hooks.ErrNotQuarantined)
	stack.WantErr(t, q.Release(admin, uuid.New(), "x"), storage.ErrNotFound)
	stranger := y.AddTenant(t).As(t.Context(), "olga", tenant.Admin)
	stack.WantErr(t, q.Release(stranger, id, "x"), storage.ErrNotFound)
	found, err := q.List(admin, uuid.Nil, 10)
	stack.Must(t, err)
	if len(found) != 1 || found[0].ID != id || *found[0].ScanSignature != "EICAR" {
		t.Errorf("in quarantine are %+v", found)
	}

	stack.Must(t, q.Release(admin, id, "a false alarm"))
	if got := y.Upload(t, y.Ctx, id); got.Status != storage.Uploaded || *got.ReleasedBy != "olga" || *got.ReleaseReason != "a false alarm" || got.ReleasedAt == nil {
		t.Errorf("the upload is %+v", got)
	}
	if n := y.Count(t, jobsOf+` and state = 'available'`, id.String()); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
	stack.WantErr(t, q.Release(admin, id, "again"), hooks.ErrNotQuarantined)
	if n := y.Count(t, `select count(*) from audit where action = 'upload.quarantine.release' and actor = 'olga' and subject = $1
		and detail->>'reason' = 'a false alarm' and detail->>'signature' = 'EICAR'`, id.String()); n != 1 {
		t.Errorf("it is audited %d times", n)
	}
}

// A file that was sent again under its client id stays in quarantine, or there would be two of them.
func TestReleaseOfWhatWasSentAgain(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	id, key := y.Quarantine(t)
	again := y.Admit(t)
	y.Exec(t, `update uploads set client_id = 'IMG_1' where id in ($1, $2)`, id, again)
	admin := y.As(t.Context(), "olga", tenant.Admin)
	stack.WantErr(t, quarantineOf(t, y).Release(admin, id, "x"), hooks.ErrClientIDTaken)
	if got := y.Upload(t, y.Ctx, id); got.Status != storage.Failed || got.ReleasedBy != nil || *got.ObjectKey != key {
		t.Errorf("the upload is %+v", got)
	}
}

// Rescans are asked for by when uploads were completed and by the signatures that were known, of one tenant and once for
// each upload, in pages.
func TestRequestRescans(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	other := y.AddTenant(t)
	other.Sound(t)
	y.Exec(t, `delete from river_job`)
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	y.Exec(t, `insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes, status, completed_at, deleted_at, purge_at)
		select $1, gen_random_uuid(), 'ana', 'default', '{}', 10, 0, 'completed',
			'2026-11-01Z'::timestamptz + n % 10 * interval '1 day', case when n > 1050 then now() end, case when n > 1050 then now() end
		from generate_series(0, 1099) n`, y.ID)
	y.Exec(t, `insert into scans (tenant_id, upload_id, verdict, signatures) select tenant_id, id, 'clean', 100
		from uploads where tenant_id = $1 and completed_at = '2026-11-03Z'`, y.ID)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := queue.New(y.Worker, log)
	stack.Must(t, err)
	request := func(dry bool, r storage.Rescan) int {
		t.Helper()
		n, err := (&hooks.Rescans{DB: y.Worker, Queue: q, DryRun: dry}).Request(t.Context(), y.ID, r)
		stack.Must(t, err)
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
	if n := y.Count(t, jobs); n != 0 {
		t.Errorf("a dry run enqueues %d", n)
	}
	if first, second := request(false, storage.Rescan{Since: day(10)}), request(false, storage.Rescan{Since: day(1)}); first != 105 || second != 1051-105 {
		t.Errorf("%d, then %d", first, second)
	}
	if n := y.Count(t, jobs); n != 1051 {
		t.Errorf("%d are enqueued", n)
	}
	if n := y.Count(t, jobs+` and args->>'tenant_id' = $1`, other.ID.String()); n != 0 {
		t.Errorf("%d of another tenant's are enqueued", n)
	}
	if n := y.Count(t, `select sum((detail->>'uploads')::int) from audit where action = 'upload.rescan' and actor = 'rescan' and tenant_id = $1`, y.ID); n != 1051 {
		t.Errorf("%d are audited", n)
	}
}
