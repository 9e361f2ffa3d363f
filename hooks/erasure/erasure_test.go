package erasure_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// left are all rows of all tables that name the tenant, but those of the tables given.
func left(t *testing.T, y *hookstest.Tenant, but ...string) (rows []string) {
	t.Helper()
	admin := y.Admin(t)
	tables := storagetest.Column[string](t, admin, `select relname::text from pg_class
		where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace order by 1`)
	for _, table := range tables {
		if slices.Contains(but, table) {
			continue
		}
		some := storagetest.Column[string](t, admin, fmt.Sprintf(`select to_jsonb(x)::text from %s x
			where to_jsonb(x)::text like '%%' || $1 || '%%' order by 1`, pgx.Identifier{table}.Sanitize()), y.ID.String())
		for _, row := range some {
			rows = append(rows, table+": "+row)
		}
	}
	return rows
}

// objectsOf are those of the tenant, by key and hookstest.Content's time.
func objectsOf(t *testing.T, y *hookstest.Tenant) []string {
	t.Helper()
	return slices.DeleteFunc(y.S3(t), func(s string) bool { return !strings.HasPrefix(s, object.TenantPrefix(y.ID)) })
}

func wantSame(t *testing.T, what string, before, after []string) {
	t.Helper()
	if len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("%s were\n%s\nand are\n%s", what, strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// An upload is deleted: nothing happens to it before its time, which is no finding of the reconciler's either. Then all of
// it goes, its quota is refunded, and its neighbours stay. What a writer that had frozen leaves afterwards is removed, and
// what nobody ever knew of is not.
func TestPurge(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	y.Sound(t)
	objects, rows, room := objectsOf(t, y), left(t, y, "audit", "river_job"), y.Room(t, y.Ctx)
	id, original, picture := y.Complete(t)
	y.Put(t, y.Keys(id).Original(77)) // which no row names
	y.Multipart(t, y.Keys(id).Original(78), hookstest.Content)
	stack.Must(t, y.Erasures.Delete(y.Ctx, id))
	stack.Must(t, y.Erase(t))
	y.WantObject(t, original, true)
	y.WantObject(t, picture, true)
	y.WantRoom(t, y.Ctx, room-10)
	y.Exec(t, `update uploads set purge_at = now() where id = $1`, id)
	stack.Must(t, y.Erase(t))
	stack.Must(t, y.Erase(t))
	wantSame(t, "the objects", objects, objectsOf(t, y))
	wantSame(t, "the rows", rows, left(t, y, "audit", "river_job"))
	y.WantRoom(t, y.Ctx, room)
	y.WantCount(t, 0, `select count(*) from river_job where args->>'upload_id' = $1`, id.String())
	y.WantCount(t, 1, `select count(*) from audit where action = 'upload.purge' and subject = $1 and actor = 'eraser'`, id.String())

	unknown := y.Keys(uuid.Must(uuid.NewV7())).Original(3)
	y.Put(t, original)
	y.Put(t, unknown)
	y.Reconcile(t)
	y.WantObject(t, original, false)
	y.WantObject(t, unknown, true)
}

// Whatever state a deleted upload is in, the reconciler has nothing to say about it, not even that it lost its object.
func TestReconcilerLeavesDeleted(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	waiting, _ := y.Finish(t)
	y.Exec(t, `delete from river_job where args->>'upload_id' = $1`, waiting.String())
	lost, original, _ := y.Complete(t)
	there, _, _ := y.Complete(t)
	stack.Must(t, y.Bucket.Delete(y.Ctx, original))
	for _, id := range []uuid.UUID{waiting, lost, there} {
		stack.Must(t, y.Erasures.Delete(y.Ctx, id))
	}
	if found := y.Reconcile(t); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	// What was to be processed is processed once it is back.
	stack.Must(t, y.Erasures.Restore(y.As(t.Context(), "jefa", tenant.Constructora), waiting))
	y.WantJobs(t, waiting, 1)
}

// A concatenated upload goes with the partial ones that it was made of, and comes back with them.
func TestDeleteConcatenation(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	a, _ := y.Partial(t)
	b, _ := y.Partial(t)
	final, err := y.Admission.Admit(y.Ctx, hooks.Request{Partials: []string{a.String(), b.String()}})
	stack.Must(t, err)
	key, sum := y.Store(t, y.Ctx, final.ID, append(slices.Clone(hookstest.Content), hookstest.Content...))
	y.Exec(t, `update contents set received = 20, stored = true, object_key = $2 where upload_id = $1`, final.ID, key)
	stack.Must(t, y.Uploads.Record(y.Ctx, final.ID, key, sum))
	stack.WantErr(t, y.Erasures.Delete(y.Ctx, a), storage.ErrWrongStatus)
	stack.Must(t, y.Erasures.Delete(y.Ctx, final.ID))
	const hidden = `select count(*) from uploads where deleted_at is not null`
	y.WantCount(t, 3, hidden)
	jefa, e := y.As(t.Context(), "jefa", tenant.Constructora), y.Erasures
	stack.WantErr(t, e.Restore(jefa, a), storage.ErrNotFound)
	stack.Must(t, e.Restore(jefa, final.ID))
	y.WantCount(t, 0, hidden)
	_, err = e.Request(jefa, erasure.Request{Upload: final.ID})
	stack.Must(t, err)
	stack.Must(t, y.Erase(t))
	if rows := left(t, y, "audit", "erasures", "tenants"); len(rows) != 0 {
		t.Errorf("left are %s", strings.Join(rows, "\n"))
	}
}

// All of a user's goes at once, in whatever state, and nothing of another's.
func TestEraseUser(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	ben := *y
	ben.Ctx = y.As(t.Context(), "ben", tenant.Empleado)
	ben.Sound(t)
	objects, rows := objectsOf(t, y), left(t, y, "audit", "erasures", "river_job")
	y.Sound(t)
	y.Exec(t, `insert into batches (tenant_id, id, project, name, user_id) values ($1, gen_random_uuid(), 'default', 'x', 'ana')`, y.ID)
	y.Exec(t, `insert into idempotency_keys (tenant_id, user_id, key, request, answer) values ($1, 'ana', 'x', sha256(''), '')`, y.ID)
	stack.Must(t, y.Erasures.Delete(y.Ctx, func() uuid.UUID { id, _, _ := y.Complete(t); return id }()))
	jefa, e := y.As(t.Context(), "jefa", tenant.Constructora), y.Erasures
	asked, err := e.Request(jefa, erasure.Request{User: "ana"})
	stack.Must(t, err)
	stack.Must(t, y.Erase(t))
	wantSame(t, "the objects", objects, objectsOf(t, y))
	wantSame(t, "the rows", rows, left(t, y, "audit", "erasures", "river_job", "batches"))
	y.WantCount(t, 1, `select count(*) from batches where user_id = 'erased'`)
	got, err := e.Find(jefa, asked.ID)
	stack.Must(t, err)
	if got.State != erasure.Done || got.Uploads != 9 || got.EndedAt == nil || got.Objects == 0 {
		t.Errorf("the erasure is %+v", got)
	}
	y.WantCount(t, 0, `select count(*) from river_job j where not exists (select from uploads u where u.id::text = args->>'upload_id')
		and kind = 'process_upload'`)
	if found := y.Reconcile(t); len(found) != 0 {
		t.Errorf("the reconciler finds %+v", found)
	}
}

// A tenant is erased: asked for by one admin and approved by another. It takes no uploads from then on, in the end nothing
// names it but its row, the audit log and the erasures, and another tenant's rows and objects are what they were.
func TestEraseTenant(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	other := y.AddTenant(t)
	other.Sound(t)
	y.Sound(t)
	stack.Must(t, y.Erasures.Delete(y.Ctx, func() uuid.UUID { id, _, _ := y.Complete(t); return id }()))
	y.Exec(t, `insert into announcements (tenant_id, type) values ($1, 'x')`, y.ID)
	objects, rows := objectsOf(t, other), left(t, other)
	one, two := y.As(t.Context(), "one", tenant.Admin), y.As(t.Context(), "two", tenant.Admin)
	e := y.Erasures

	_, err := e.Request(y.As(t.Context(), "jefa", tenant.Constructora), erasure.Request{Tenant: true})
	stack.WantErr(t, err, tenant.ErrForbidden)
	first, err := e.Request(one, erasure.Request{Tenant: true})
	stack.Must(t, err)
	_, err = e.Request(two, erasure.Request{Tenant: true})
	stack.WantErr(t, err, erasure.ErrWrongState)
	_, err = e.Cancel(two, first.ID)
	stack.Must(t, err)
	_, err = e.Approve(two, first.ID)
	stack.WantErr(t, err, erasure.ErrWrongState)
	asked, err := e.Request(one, erasure.Request{Tenant: true})
	stack.Must(t, err)
	stack.Must(t, y.Erase(t)) // which must not believe that it is approved
	y.Admit(t)
	_, err = e.Approve(one, asked.ID)
	stack.WantErr(t, err, erasure.ErrSameAdmin)
	_, err = e.Approve(y.As(t.Context(), "jefa", tenant.Constructora), asked.ID)
	stack.WantErr(t, err, tenant.ErrForbidden)
	_, err = e.Approve(other.As(t.Context(), "two", tenant.Admin), asked.ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = e.Approve(two, asked.ID)
	stack.Must(t, err)
	_, err = y.Admission.Admit(y.Ctx, hooks.Request{Size: 10})
	stack.WantErr(t, err, hooks.ErrNoTenant)

	stack.Must(t, y.Erase(t))
	got, err := e.Find(one, asked.ID)
	stack.Must(t, err)
	if got.State != erasure.Done || got.Uploads != 10 {
		t.Errorf("the erasure is %+v", got)
	}
	if left := objectsOf(t, y); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
	if rows := left(t, y, "audit", "erasures", "tenants"); len(rows) != 0 {
		t.Errorf("left are\n%s", strings.Join(rows, "\n"))
	}
	y.WantCount(t, 1, `select count(*) from tenants where id = $1 and erased_at is not null and name = 'erased ' || id and charged_bytes = 0`, y.ID)
	y.WantCount(t, 6, `select count(*) from audit where tenant_id = $1 and action like 'erasure.%' and outcome in ('done', 'same-admin')`, y.ID)
	wantSame(t, "the other tenant's objects", objects, objectsOf(t, other))
	wantSame(t, "the other tenant's rows", rows, left(t, other))

	late := y.Keys(uuid.Must(uuid.NewV7())).Original(3) // of a writer that froze
	y.Put(t, late)
	y.Reconcile(t)
	y.WantObject(t, late, false)
}

// A dead letter goes with its upload.
func TestPurgeTakesDeadLetters(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	id, _ := y.GivenUp(t)
	y.Reconcile(t)
	const letters = `select count(*) from dead_letters`
	y.WantCount(t, 1, letters)
	deleteFor(t, y, id, 0)
	stack.Must(t, y.Erase(t))
	y.WantCount(t, 0, letters)
}

// An upload that a worker processes just now goes once that is over: it might still write a picture. Others need not wait.
func TestEraseWaitsForJob(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	busy, key := y.Finish(t)
	_, free := y.Finish(t)
	y.Exec(t, `update river_job set state = 'running', attempt = 1, attempted_at = now() where args->>'upload_id' = $1`, busy.String())
	e, jefa := y.Erasures, y.As(t.Context(), "jefa", tenant.Constructora)
	asked, err := e.Request(jefa, erasure.Request{User: "ana"})
	stack.Must(t, err)
	stack.WantErr(t, y.Erase(t), queue.ErrRunning)
	y.WantObject(t, key, true)
	y.WantObject(t, free, false)
	stack.WantErr(t, y.API.InTenant(y.Ctx, func(tx storage.Tx) error { _, err := tx.Upload(y.Ctx, busy); return err }), storage.ErrNotFound)
	y.Exec(t, `update river_job set state = 'completed', finalized_at = now() where args->>'upload_id' = $1`, busy.String())
	stack.Must(t, y.Erase(t))
	y.WantObject(t, key, false)
	if got, err := e.Find(jefa, asked.ID); err != nil || got.State != erasure.Done || got.Uploads != 2 {
		t.Errorf("the erasure is %+v (%v)", got, err)
	}
}

// Whoever writes an upload is asked to let go before it is erased, and cannot write any more afterwards.
func TestEraseTakesTheLease(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	id, _ := y.Begin(t)
	log := stack.Log(t, slog.LevelInfo)
	leases := lease.NewManager(y.API, "server", 5*time.Second, log)
	stack.Must(t, leases.During(t.Context(), func(ctx context.Context) error {
		asked := make(chan struct{}, 8)
		var lease *lease.Lease
		lease, err := leases.Acquire(y.Ctx, id, func() { asked <- struct{}{} })
		stack.Must(t, err)
		_, err = y.Erasures.Request(y.As(ctx, "jefa", tenant.Constructora), erasure.Request{Upload: id})
		stack.Must(t, err)
		done := make(chan error, 1)
		go func() { done <- y.Erase(t) }()
		select {
		case <-asked:
		case err := <-done:
			t.Fatalf("it was erased under its writer: %v", err)
		case <-time.After(stack.Patience):
			t.Fatal("the writer is not asked to let go")
		}
		y.WantCount(t, 1, `select count(*) from uploads where id = $1`, id)
		stack.Must(t, lease.Release(ctx))
		stack.Must(t, stack.Receive(t, "erasure", done))
		stack.WantErr(t, y.API.InTenant(y.Ctx, func(tx storage.Tx) error {
			return tx.Advance(y.Ctx, id, lease.Fence(), storage.Progress{From: 5, To: 6, TailSize: 1})
		}), storage.ErrFenced)
		return nil
	}))
	if left := objectsOf(t, y); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
}

// A manager whose token covers some projects decides on nothing that goes beyond them.
func TestErasureIsForManagersOfAll(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	e := y.Erasures
	some := tenant.With(t.Context(), tenant.Identity{Tenant: y.ID, User: "x", Role: tenant.Constructora, Projects: []string{"torre"}})
	for name, ctx := range map[string]context.Context{
		"empleado": y.Ctx, "inversionista": y.As(t.Context(), "x", tenant.Inversionista), "of a project": some,
	} {
		_, err := e.Request(ctx, erasure.Request{User: "ana"})
		stack.WantErr(t, err, tenant.ErrForbidden)
		_, err = e.List(ctx, uuid.Nil, 10)
		stack.WantErr(t, err, tenant.ErrForbidden)
		if _, err = e.MayExport(ctx, y.ID); err == nil {
			t.Errorf("%s may export", name)
		}
	}
	jefa := y.As(t.Context(), "jefa", tenant.Constructora)
	_, err := e.MayExport(jefa, y.AddTenant(t).ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = e.MayExport(y.As(t.Context(), "op", tenant.Admin), uuid.New())
	stack.WantErr(t, err, storage.ErrNotFound)
	for _, r := range []erasure.Request{{}, {User: "a", Tenant: true}, {User: "a\x00b"}} {
		_, err := e.Request(jefa, r)
		stack.WantErr(t, err, erasure.ErrBadRequest)
	}
	_, err = e.Request(jefa, erasure.Request{Upload: uuid.New()})
	stack.WantErr(t, err, storage.ErrNotFound)
}

// Whatever is in quarantine goes with its upload, its user and its tenant.
func TestErasureEmptiesQuarantine(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*testing.T, *hookstest.Tenant, uuid.UUID){
		"upload": func(t *testing.T, y *hookstest.Tenant, id uuid.UUID) {
			t.Helper()
			_, err := y.Erasures.EraseQuarantined(y.As(t.Context(), "olga", tenant.Admin), id)
			stack.Must(t, err)
			y.Put(t, y.Keys(id).Quarantine(8)) // which no row names
			y.Multipart(t, y.Keys(id).Quarantine(9), hookstest.Content)
		},
		"deleted": func(t *testing.T, y *hookstest.Tenant, id uuid.UUID) {
			t.Helper()
			stack.Must(t, y.Erasures.Delete(y.Ctx, id))
			y.Exec(t, `update uploads set purge_at = now() where id = $1`, id)
		},
		"user": func(t *testing.T, y *hookstest.Tenant, _ uuid.UUID) {
			t.Helper()
			_, err := y.Erasures.Request(y.As(t.Context(), "jefa", tenant.Constructora), erasure.Request{User: "ana"})
			stack.Must(t, err)
		},
		"tenant": func(t *testing.T, y *hookstest.Tenant, _ uuid.UUID) {
			t.Helper()
			y.Put(t, y.Keys(uuid.Must(uuid.NewV7())).Quarantine(1)) // of which no row is known
			e, err := y.Erasures.Request(y.As(t.Context(), "one", tenant.Admin), erasure.Request{Tenant: true})
			stack.Must(t, err)
			_, err = y.Erasures.Approve(y.As(t.Context(), "two", tenant.Admin), e.ID)
			stack.Must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y := hookstest.NewTenant(t)
			other := y.AddTenant(t)
			other.Sound(t)
			_, theirs := other.Quarantine(t)
			id, _ := y.Quarantine(t)
			ask(t, y, id)
			stack.Must(t, y.Erase(t))
			stack.Must(t, y.Erase(t))
			for _, o := range y.S3(t) {
				if strings.Contains(o, y.ID.String()) {
					t.Errorf("S3 still has %s", o)
				}
			}
			y.WantCount(t, 0, `select (select count(*) from scans where tenant_id = $1) + (select count(*) from uploads where tenant_id = $1)`, y.ID)
			other.WantObject(t, theirs, true)
		})
	}
}

// An admin of the installation with a token for all projects may erase an upload in quarantine, and no other upload that way.
func TestEraseQuarantinedIsForAdmins(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	id, _ := y.Quarantine(t)
	clean, _, _ := y.Complete(t)
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		_, err := y.Erasures.EraseQuarantined(y.As(t.Context(), "x", role), id)
		stack.WantErr(t, err, tenant.ErrForbidden)
	}
	_, err := y.Erasures.EraseQuarantined(y.As(t.Context(), "olga", tenant.Admin), clean)
	stack.WantErr(t, err, quarantine.ErrNotQuarantined)
	_, err = y.Erasures.EraseQuarantined(y.AddTenant(t).As(t.Context(), "olga", tenant.Admin), id)
	stack.WantErr(t, err, storage.ErrNotFound)
}
