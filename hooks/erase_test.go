package hooks_test

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
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

func (y *yard) eraser(t *testing.T) *hooks.Eraser {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	return &hooks.Eraser{DB: y.Worker, Bucket: y.bucket, Log: log,
		Locker: object.Locker{Leases: lease.NewManager(y.Worker, "eraser", 5*time.Second, log), Log: log}}
}

// erase makes a pass.
func (y *yard) erase(t *testing.T) error {
	t.Helper()
	e := y.eraser(t)
	return e.Locker.Leases.During(t.Context(), e.Erase)
}

func (y *yard) erasures(t *testing.T) *hooks.Erasures {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := queue.New(y.API, log)
	must(t, err)
	return &hooks.Erasures{DB: y.API, Queue: q, Log: log}
}

// manage acts in the yard's tenant as somebody else.
func (y *yard) manage(ctx context.Context, user string, role tenant.Role) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: y.tenant, User: user, Role: role})
}

// neighbour is a yard in the same database and bucket for another tenant, with uploads of every state.
func (y *yard) neighbour(t *testing.T) *yard {
	t.Helper()
	other := *y
	other.ctx = y.NewTenant(t, quota)
	who, err := tenant.From(other.ctx)
	must(t, err)
	other.tenant = who.Tenant
	other.neighbours(t)
	return &other
}

// left are all rows of all tables that name the tenant, but those of the tables given.
func (y *yard) left(t *testing.T, but ...string) (rows []string) {
	t.Helper()
	admin := y.Admin(t)
	found, err := admin.Query(t.Context(), `select relname::text from pg_class
		where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace order by 1`)
	must(t, err)
	tables, err := pgx.CollectRows(found, pgx.RowTo[string])
	must(t, err)
	for _, table := range tables {
		if slices.Contains(but, table) {
			continue
		}
		found, err := admin.Query(t.Context(), fmt.Sprintf(`select to_jsonb(x)::text from %s x
			where to_jsonb(x)::text like '%%' || $1 || '%%' order by 1`, pgx.Identifier{table}.Sanitize()), y.tenant.String())
		must(t, err)
		some, err := pgx.CollectRows(found, pgx.RowTo[string])
		must(t, err)
		for _, row := range some {
			rows = append(rows, table+": "+row)
		}
	}
	return rows
}

// objects are those of the tenant, by key and content's time.
func (y *yard) objects(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(y.s3(t), func(s string) bool { return !strings.HasPrefix(s, object.TenantPrefix(y.tenant)) })
}

func (y *yard) wantSame(t *testing.T, what string, before, after []string) {
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
	y := newYard(t)
	y.neighbours(t)
	objects, rows, room := y.objects(t), y.left(t, "audit", "river_job"), y.room(t, y.ctx)
	id, original, picture := y.complete(t)
	y.put(t, y.keys(id).Original(77)) // which no row names
	y.multipart(t, y.keys(id).Original(78), content)
	must(t, y.finisher.Delete(y.ctx, id))
	must(t, y.erase(t))
	y.wantObject(t, original, true)
	y.wantObject(t, picture, true)
	if got := y.room(t, y.ctx); got != room-10 {
		t.Errorf("%d bytes are left, not %d", got, room-10)
	}
	y.exec(t, `update uploads set purge_at = now() where id = $1`, id)
	must(t, y.erase(t))
	must(t, y.erase(t))
	y.wantSame(t, "the objects", objects, y.objects(t))
	y.wantSame(t, "the rows", rows, y.left(t, "audit", "river_job"))
	if got := y.room(t, y.ctx); got != room {
		t.Errorf("%d bytes are left, not %d", got, room)
	}
	if n := y.count(t, `select count(*) from river_job where args->>'upload_id' = $1`, id.String()); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
	if n := y.count(t, `select count(*) from audit where action = 'upload.purge' and subject = $1 and actor = 'eraser'`, id.String()); n != 1 {
		t.Errorf("the audit log tells of it %d times", n)
	}

	unknown := y.keys(uuid.Must(uuid.NewV7())).Original(3)
	y.put(t, original)
	y.put(t, unknown)
	y.reconcile(t)
	y.wantObject(t, original, false)
	y.wantObject(t, unknown, true)
}

// Whatever state a deleted upload is in, the reconciler has nothing to say about it, not even that it lost its object.
func TestReconcilerLeavesDeleted(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	waiting, _ := y.finish(t)
	y.exec(t, `delete from river_job where args->>'upload_id' = $1`, waiting.String())
	lost, original, _ := y.complete(t)
	there, _, _ := y.complete(t)
	must(t, y.bucket.Delete(y.ctx, original))
	for _, id := range []uuid.UUID{waiting, lost, there} {
		must(t, y.finisher.Delete(y.ctx, id))
	}
	if found := y.reconcile(t); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	// What was to be processed is processed once it is back.
	must(t, y.erasures(t).Restore(y.manage(t.Context(), "jefa", tenant.Constructora), waiting))
	if n := y.count(t, jobsOf, waiting.String()); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
}

// A concatenated upload goes with the partial ones that it was made of, and comes back with them.
func TestDeleteConcatenation(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	a, _ := y.whole(t)
	b, _ := y.whole(t)
	final, err := y.admission.Admit(y.ctx, hooks.Request{Partials: []string{a.String(), b.String()}})
	must(t, err)
	key, sum := y.store(t, y.ctx, final.ID, append(slices.Clone(content), content...))
	y.exec(t, `update contents set received = 20, stored = true, object_key = $2 where upload_id = $1`, final.ID, key)
	must(t, y.finisher.Finish(y.ctx, final.ID, key, sum))
	wantErr(t, y.finisher.Delete(y.ctx, a), storage.ErrWrongStatus)
	must(t, y.finisher.Delete(y.ctx, final.ID))
	const hidden = `select count(*) from uploads where deleted_at is not null`
	if n := y.count(t, hidden); n != 3 {
		t.Errorf("%d are deleted, not 3", n)
	}
	jefa, e := y.manage(t.Context(), "jefa", tenant.Constructora), y.erasures(t)
	wantErr(t, e.Restore(jefa, a), storage.ErrNotFound)
	must(t, e.Restore(jefa, final.ID))
	if n := y.count(t, hidden); n != 0 {
		t.Errorf("%d are deleted still", n)
	}
	_, err = e.Request(jefa, hooks.EraseRequest{Upload: final.ID})
	must(t, err)
	must(t, y.erase(t))
	if rows := y.left(t, "audit", "erasures", "tenants"); len(rows) != 0 {
		t.Errorf("left are %s", strings.Join(rows, "\n"))
	}
}

// All of a user's goes at once, in whatever state, and nothing of another's.
func TestEraseUser(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ben := *y
	ben.ctx = y.manage(t.Context(), "ben", tenant.Empleado)
	ben.neighbours(t)
	objects, rows := y.objects(t), y.left(t, "audit", "erasures", "river_job")
	y.neighbours(t)
	y.exec(t, `insert into batches (tenant_id, id, project, name, user_id) values ($1, gen_random_uuid(), 'default', 'x', 'ana')`, y.tenant)
	y.exec(t, `insert into idempotency_keys (tenant_id, user_id, key, request, answer) values ($1, 'ana', 'x', sha256(''), '')`, y.tenant)
	must(t, y.finisher.Delete(y.ctx, func() uuid.UUID { id, _, _ := y.complete(t); return id }()))
	jefa, e := y.manage(t.Context(), "jefa", tenant.Constructora), y.erasures(t)
	erasure, err := e.Request(jefa, hooks.EraseRequest{User: "ana"})
	must(t, err)
	must(t, y.erase(t))
	y.wantSame(t, "the objects", objects, y.objects(t))
	y.wantSame(t, "the rows", rows, y.left(t, "audit", "erasures", "river_job", "batches"))
	if n := y.count(t, `select count(*) from batches where user_id = 'erased'`); n != 1 {
		t.Errorf("%d batches are nobody's", n)
	}
	got, err := e.Find(jefa, erasure.ID)
	must(t, err)
	if got.State != storage.ErasureDone || got.Uploads != 9 || got.EndedAt == nil || got.Objects == 0 {
		t.Errorf("the erasure is %+v", got)
	}
	if n := y.count(t, `select count(*) from river_job j where not exists (select from uploads u where u.id::text = args->>'upload_id')
		and kind = 'process_upload'`); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
	if found := y.reconcile(t); len(found) != 0 {
		t.Errorf("the reconciler finds %+v", found)
	}
}

// A tenant is erased: asked for by one admin and approved by another. It takes no uploads from then on, in the end nothing
// names it but its row, the audit log and the erasures, and another tenant's rows and objects are what they were.
func TestEraseTenant(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	other := y.neighbour(t)
	y.neighbours(t)
	must(t, y.finisher.Delete(y.ctx, func() uuid.UUID { id, _, _ := y.complete(t); return id }()))
	y.exec(t, `insert into announcements (tenant_id, type) values ($1, 'x')`, y.tenant)
	objects, rows := other.objects(t), other.left(t)
	one, two := y.manage(t.Context(), "one", tenant.Admin), y.manage(t.Context(), "two", tenant.Admin)
	e := y.erasures(t)

	_, err := e.Request(y.manage(t.Context(), "jefa", tenant.Constructora), hooks.EraseRequest{Tenant: true})
	wantErr(t, err, hooks.ErrForbidden)
	first, err := e.Request(one, hooks.EraseRequest{Tenant: true})
	must(t, err)
	_, err = e.Request(two, hooks.EraseRequest{Tenant: true})
	wantErr(t, err, hooks.ErrErasureState)
	_, err = e.Cancel(two, first.ID)
	must(t, err)
	_, err = e.Approve(two, first.ID)
	wantErr(t, err, hooks.ErrErasureState)
	erasure, err := e.Request(one, hooks.EraseRequest{Tenant: true})
	must(t, err)
	must(t, y.erase(t)) // which must not believe that it is approved
	y.admit(t)
	_, err = e.Approve(one, erasure.ID)
	wantErr(t, err, hooks.ErrSameAdmin)
	_, err = e.Approve(y.manage(t.Context(), "jefa", tenant.Constructora), erasure.ID)
	wantErr(t, err, hooks.ErrForbidden)
	_, err = e.Approve(other.manage(t.Context(), "two", tenant.Admin), erasure.ID)
	wantErr(t, err, storage.ErrNotFound)
	_, err = e.Approve(two, erasure.ID)
	must(t, err)
	_, err = y.admission.Admit(y.ctx, hooks.Request{Size: 10})
	wantErr(t, err, hooks.ErrNoTenant)

	must(t, y.erase(t))
	got, err := e.Find(one, erasure.ID)
	must(t, err)
	if got.State != storage.ErasureDone || got.Uploads != 10 {
		t.Errorf("the erasure is %+v", got)
	}
	if left := y.objects(t); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
	if rows := y.left(t, "audit", "erasures", "tenants"); len(rows) != 0 {
		t.Errorf("left are\n%s", strings.Join(rows, "\n"))
	}
	if n := y.count(t, `select count(*) from tenants where id = $1 and erased_at is not null and name = 'erased ' || id and charged_bytes = 0`, y.tenant); n != 1 {
		t.Error("there is no tombstone")
	}
	if n := y.count(t, `select count(*) from audit where tenant_id = $1 and action like 'erasure.%' and outcome in ('done', 'same-admin')`, y.tenant); n != 6 {
		t.Errorf("the audit log tells of %d steps", n)
	}
	y.wantSame(t, "the other tenant's objects", objects, other.objects(t))
	y.wantSame(t, "the other tenant's rows", rows, other.left(t))

	late := y.keys(uuid.Must(uuid.NewV7())).Original(3) // of a writer that froze
	y.put(t, late)
	y.reconcile(t)
	y.wantObject(t, late, false)
}

// An upload that a worker processes just now goes once that is over: it might still write a picture. Others need not wait.
func TestEraseWaitsForJob(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	busy, key := y.finish(t)
	_, free := y.finish(t)
	y.exec(t, `update river_job set state = 'running', attempt = 1, attempted_at = now() where args->>'upload_id' = $1`, busy.String())
	e, jefa := y.erasures(t), y.manage(t.Context(), "jefa", tenant.Constructora)
	erasure, err := e.Request(jefa, hooks.EraseRequest{User: "ana"})
	must(t, err)
	wantErr(t, y.erase(t), storage.ErrInUse)
	y.wantObject(t, key, true)
	y.wantObject(t, free, false)
	wantErr(t, y.API.InTenant(y.ctx, func(tx storage.Tx) error { _, err := tx.Upload(y.ctx, busy); return err }), storage.ErrNotFound)
	y.exec(t, `update river_job set state = 'completed', finalized_at = now() where args->>'upload_id' = $1`, busy.String())
	must(t, y.erase(t))
	y.wantObject(t, key, false)
	if got, err := e.Find(jefa, erasure.ID); err != nil || got.State != storage.ErasureDone || got.Uploads != 2 {
		t.Errorf("the erasure is %+v (%v)", got, err)
	}
}

// Whoever writes an upload is asked to let go before it is erased, and cannot write any more afterwards.
func TestEraseTakesTheLease(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id, _ := y.begin(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	leases := lease.NewManager(y.API, "server", 5*time.Second, log)
	must(t, leases.During(t.Context(), func(ctx context.Context) error {
		asked := make(chan struct{}, 8)
		var lease *lease.Lease
		lease, err := leases.Acquire(y.ctx, id, func() { asked <- struct{}{} })
		must(t, err)
		_, err = y.erasures(t).Request(y.manage(ctx, "jefa", tenant.Constructora), hooks.EraseRequest{Upload: id})
		must(t, err)
		done := make(chan error, 1)
		go func() { done <- y.erase(t) }()
		select {
		case <-asked:
		case err := <-done:
			t.Fatalf("it was erased under its writer: %v", err)
		}
		if n := y.count(t, `select count(*) from uploads where id = $1`, id); n != 1 {
			t.Error("its rows went while it was written")
		}
		must(t, lease.Release(ctx))
		must(t, <-done)
		wantErr(t, y.API.InTenant(y.ctx, func(tx storage.Tx) error {
			return tx.Advance(y.ctx, id, lease.Fence(), storage.Progress{From: 5, To: 6, TailSize: 1})
		}), storage.ErrFenced)
		return nil
	}))
	if left := y.objects(t); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
}

// A manager whose token covers some projects decides on nothing that goes beyond them.
func TestErasureIsForManagersOfAll(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	e := y.erasures(t)
	some := tenant.With(t.Context(), tenant.Identity{Tenant: y.tenant, User: "x", Role: tenant.Constructora, Projects: []string{"torre"}})
	for name, ctx := range map[string]context.Context{
		"empleado": y.ctx, "inversionista": y.manage(t.Context(), "x", tenant.Inversionista), "of a project": some,
	} {
		_, err := e.Request(ctx, hooks.EraseRequest{User: "ana"})
		wantErr(t, err, hooks.ErrForbidden)
		_, err = e.List(ctx, uuid.Nil, 10)
		wantErr(t, err, hooks.ErrForbidden)
		if _, err = e.MayExport(ctx, y.tenant); err == nil {
			t.Errorf("%s may export", name)
		}
	}
	jefa := y.manage(t.Context(), "jefa", tenant.Constructora)
	_, err := e.MayExport(jefa, y.neighbour(t).tenant)
	wantErr(t, err, storage.ErrNotFound)
	_, err = e.MayExport(y.manage(t.Context(), "op", tenant.Admin), uuid.New())
	wantErr(t, err, storage.ErrNotFound)
	for _, r := range []hooks.EraseRequest{{}, {User: "a", Tenant: true}, {User: "a\x00b"}} {
		_, err := e.Request(jefa, r)
		wantErr(t, err, hooks.ErrBadErasure)
	}
	_, err = e.Request(jefa, hooks.EraseRequest{Upload: uuid.New()})
	wantErr(t, err, storage.ErrNotFound)
}
