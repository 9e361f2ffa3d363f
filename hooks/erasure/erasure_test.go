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
func left(t *testing.T, s *hookstest.Tenant, but ...string) (rows []string) {
	t.Helper()
	admin := s.Admin(t)
	tables := storagetest.Column[string](t, admin, `select relname::text from pg_class
		where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace order by 1`)
	for _, table := range tables {
		if slices.Contains(but, table) {
			continue
		}
		some := storagetest.Column[string](t, admin, fmt.Sprintf(`select to_jsonb(x)::text from %s x
			where to_jsonb(x)::text like '%%' || $1 || '%%' order by 1`, pgx.Identifier{table}.Sanitize()), s.ID.String())
		for _, row := range some {
			rows = append(rows, table+": "+row)
		}
	}
	return rows
}

// objectsOf are those of the tenant, by key and hookstest.Content's time.
func objectsOf(t *testing.T, s *hookstest.Tenant) []string {
	t.Helper()
	return slices.DeleteFunc(s.S3(t), func(key string) bool { return !strings.HasPrefix(key, object.TenantPrefix(s.ID)) })
}

func wantSame(t *testing.T, what string, before, after []string) {
	t.Helper()
	if len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("%s were\n%s\nand are\n%s", what, strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// An upload is deleted: until its retention is over nothing is removed, and the reconciler finds nothing. Then all of it is
// removed, its quota is refunded, and other uploads stay. What a frozen writer stores afterwards is removed; an object of an
// unknown upload is not.
func TestPurge(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	s.Sound(t)
	objects, rows, room := objectsOf(t, s), left(t, s, "audit", "river_job"), s.Room(t, s.Ctx)
	id, original, picture := s.Complete(t)
	s.Put(t, s.Keys(id).Original(77)) // which no row names
	s.Multipart(t, s.Keys(id).Original(78), hookstest.Content)
	stack.Must(t, s.Erasures.Delete(s.Ctx, id))
	stack.Must(t, s.Erase(t))
	s.WantObject(t, original, true)
	s.WantObject(t, picture, true)
	s.WantRoom(t, s.Ctx, room-10)
	s.Exec(t, `update uploads set purge_at = now() where id = $1`, id)
	stack.Must(t, s.Erase(t))
	stack.Must(t, s.Erase(t))
	wantSame(t, "the objects", objects, objectsOf(t, s))
	wantSame(t, "the rows", rows, left(t, s, "audit", "river_job"))
	s.WantRoom(t, s.Ctx, room)
	s.WantCount(t, 0, `select count(*) from river_job where args->>'upload_id' = $1`, id.String())
	s.WantCount(t, 1, `select count(*) from audit where action = 'upload.purge' and subject = $1 and actor = 'eraser'`, id.String())

	unknown := s.Keys(uuid.Must(uuid.NewV7())).Original(3)
	s.Put(t, original)
	s.Put(t, unknown)
	s.Reconcile(t)
	s.WantObject(t, original, false)
	s.WantObject(t, unknown, true)
}

// The reconciler has no finding about a deleted upload in any state, not even that its object is lost.
func TestReconcilerLeavesDeleted(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	waiting, _ := s.Finish(t)
	s.Exec(t, `delete from river_job where args->>'upload_id' = $1`, waiting.String())
	lost, original, _ := s.Complete(t)
	there, _, _ := s.Complete(t)
	stack.Must(t, s.Bucket.Delete(s.Ctx, original))
	for _, id := range []uuid.UUID{waiting, lost, there} {
		stack.Must(t, s.Erasures.Delete(s.Ctx, id))
	}
	if found := s.Reconcile(t); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	// An upload that waited for its processing is enqueued again when it is restored.
	stack.Must(t, s.Erasures.Restore(s.As(t.Context(), "jefa", tenant.Constructora), waiting))
	s.WantJobs(t, waiting, 1)
}

// A concatenated upload goes with the partial ones that it was made of, and comes back with them.
func TestDeleteConcatenation(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	a, _ := s.Partial(t)
	b, _ := s.Partial(t)
	final, err := s.Admission.Admit(s.Ctx, hooks.Request{Partials: []string{a.String(), b.String()}})
	stack.Must(t, err)
	key, sum := s.Store(t, s.Ctx, final.ID, append(slices.Clone(hookstest.Content), hookstest.Content...))
	s.Exec(t, `update contents set received = 20, stored = true, object_key = $2 where upload_id = $1`, final.ID, key)
	stack.Must(t, s.Uploads.Record(s.Ctx, s.Upload(t, s.Ctx, final.ID), key, sum))
	stack.WantErr(t, s.Erasures.Delete(s.Ctx, a), storage.ErrWrongStatus)
	stack.Must(t, s.Erasures.Delete(s.Ctx, final.ID))
	const hidden = `select count(*) from uploads where deleted_at is not null`
	s.WantCount(t, 3, hidden)
	jefa, e := s.As(t.Context(), "jefa", tenant.Constructora), s.Erasures
	stack.WantErr(t, e.Restore(jefa, a), storage.ErrNotFound)
	stack.Must(t, e.Restore(jefa, final.ID))
	s.WantCount(t, 0, hidden)
	_, err = e.Request(jefa, erasure.Request{Upload: final.ID})
	stack.Must(t, err)
	stack.Must(t, s.Erase(t))
	if rows := left(t, s, "audit", "erasures", "tenants"); len(rows) != 0 {
		t.Errorf("left are %s", strings.Join(rows, "\n"))
	}
}

// The uploads of a user are all removed, in every state, and no uploads of others.
func TestEraseUser(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	ben := *s
	ben.Ctx = s.As(t.Context(), "ben", tenant.Empleado)
	ben.Sound(t)
	objects, rows := objectsOf(t, s), left(t, s, "audit", "erasures", "river_job")
	s.Sound(t)
	s.Exec(t, `insert into batches (tenant_id, id, project, name, user_id) values ($1, gen_random_uuid(), 'default', 'x', 'ana')`, s.ID)
	s.Exec(t, `insert into idempotency_keys (tenant_id, user_id, key, request, answer) values ($1, 'ana', 'x', sha256(''), '')`, s.ID)
	stack.Must(t, s.Erasures.Delete(s.Ctx, func() uuid.UUID { id, _, _ := s.Complete(t); return id }()))
	jefa, e := s.As(t.Context(), "jefa", tenant.Constructora), s.Erasures
	asked, err := e.Request(jefa, erasure.Request{User: "ana"})
	stack.Must(t, err)
	stack.Must(t, s.Erase(t))
	wantSame(t, "the objects", objects, objectsOf(t, s))
	wantSame(t, "the rows", rows, left(t, s, "audit", "erasures", "river_job", "batches"))
	s.WantCount(t, 1, `select count(*) from batches where user_id = 'erased'`)
	got, err := e.Find(jefa, asked.ID)
	stack.Must(t, err)
	if got.State != erasure.Done || got.Uploads != 9 || got.EndedAt == nil || got.Objects == 0 {
		t.Errorf("the erasure is %+v", got)
	}
	s.WantCount(t, 0, `select count(*) from river_job j where not exists (select from uploads u where u.id::text = args->>'upload_id')
		and kind = 'process_upload'`)
	if found := s.Reconcile(t); len(found) != 0 {
		t.Errorf("the reconciler finds %+v", found)
	}
}

// A tenant is erased: asked for by one admin and approved by another. It takes no uploads from then on, in the end nothing
// names it but its row, the audit log and the erasures, and another tenant's rows and objects are what they were.
func TestEraseTenant(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	other := s.AddTenant(t)
	other.Sound(t)
	s.Sound(t)
	stack.Must(t, s.Erasures.Delete(s.Ctx, func() uuid.UUID { id, _, _ := s.Complete(t); return id }()))
	s.Exec(t, `insert into announcements (tenant_id, type) values ($1, 'x')`, s.ID)
	objects, rows := objectsOf(t, other), left(t, other)
	one, two := s.As(t.Context(), "one", tenant.Admin), s.As(t.Context(), "two", tenant.Admin)
	e := s.Erasures

	_, err := e.Request(s.As(t.Context(), "jefa", tenant.Constructora), erasure.Request{Tenant: true})
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
	stack.Must(t, s.Erase(t)) // although the program does not know that it needs approval
	s.Admit(t)
	_, err = e.Approve(one, asked.ID)
	stack.WantErr(t, err, erasure.ErrSameAdmin)
	_, err = e.Approve(s.As(t.Context(), "jefa", tenant.Constructora), asked.ID)
	stack.WantErr(t, err, tenant.ErrForbidden)
	_, err = e.Approve(other.As(t.Context(), "two", tenant.Admin), asked.ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = e.Approve(two, asked.ID)
	stack.Must(t, err)
	_, err = s.Admission.Admit(s.Ctx, hooks.Request{Size: 10})
	stack.WantErr(t, err, hooks.ErrNoTenant)

	stack.Must(t, s.Erase(t))
	got, err := e.Find(one, asked.ID)
	stack.Must(t, err)
	if got.State != erasure.Done || got.Uploads != 10 {
		t.Errorf("the erasure is %+v", got)
	}
	if left := objectsOf(t, s); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
	if rows := left(t, s, "audit", "erasures", "tenants"); len(rows) != 0 {
		t.Errorf("left are\n%s", strings.Join(rows, "\n"))
	}
	s.WantCount(t, 1, `select count(*) from tenants where id = $1 and erased_at is not null and name = 'erased ' || id and charged_bytes = 0`, s.ID)
	s.WantCount(t, 6, `select count(*) from audit where tenant_id = $1 and action like 'erasure.%' and outcome in ('done', 'same-admin')`, s.ID)
	wantSame(t, "the other tenant's objects", objects, objectsOf(t, other))
	wantSame(t, "the other tenant's rows", rows, left(t, other))

	late := s.Keys(uuid.Must(uuid.NewV7())).Original(3) // of a writer that was frozen
	s.Put(t, late)
	s.Reconcile(t)
	s.WantObject(t, late, false)
}

// A dead letter goes with its upload.
func TestPurgeTakesDeadLetters(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	id, _ := s.GivenUp(t)
	s.Reconcile(t)
	const letters = `select count(*) from dead_letters`
	s.WantCount(t, 1, letters)
	deleteFor(t, s, id, 0)
	stack.Must(t, s.Erase(t))
	s.WantCount(t, 0, letters)
}

// An upload that a worker is processing is removed after its job has ended, which may still write a thumbnail. Others do not wait.
func TestEraseWaitsForJob(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	busy, key := s.Finish(t)
	_, free := s.Finish(t)
	s.Exec(t, `update river_job set state = 'running', attempt = 1, attempted_at = now() where args->>'upload_id' = $1`, busy.String())
	e, jefa := s.Erasures, s.As(t.Context(), "jefa", tenant.Constructora)
	asked, err := e.Request(jefa, erasure.Request{User: "ana"})
	stack.Must(t, err)
	stack.WantErr(t, s.Erase(t), queue.ErrRunning)
	s.WantObject(t, key, true)
	s.WantObject(t, free, false)
	stack.WantErr(t, s.API.InTenant(s.Ctx, func(tx storage.Tx) error { _, err := tx.Upload(s.Ctx, busy); return err }), storage.ErrNotFound)
	s.Exec(t, `update river_job set state = 'completed', finalized_at = now() where args->>'upload_id' = $1`, busy.String())
	stack.Must(t, s.Erase(t))
	s.WantObject(t, key, false)
	if got, err := e.Find(jefa, asked.ID); err != nil || got.State != erasure.Done || got.Uploads != 2 {
		t.Errorf("the erasure is %+v (%v)", got, err)
	}
}

// The holder of an upload's lease is asked to let go before the upload is erased, and cannot write afterwards.
func TestEraseTakesTheLease(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	id, _ := s.Begin(t)
	log := stack.Log(t, slog.LevelInfo)
	leases := lease.NewManager(s.API, "server", 5*time.Second, log)
	stack.Must(t, leases.During(t.Context(), func(ctx context.Context) error {
		asked := make(chan struct{}, 8)
		var lease *lease.Lease
		lease, err := leases.Acquire(s.Ctx, id, func() { asked <- struct{}{} })
		stack.Must(t, err)
		_, err = s.Erasures.Request(s.As(ctx, "jefa", tenant.Constructora), erasure.Request{Upload: id})
		stack.Must(t, err)
		done := make(chan error, 1)
		go func() { done <- s.Erase(t) }()
		select {
		case <-asked:
		case err := <-done:
			t.Fatalf("it was erased under its writer: %v", err)
		case <-time.After(stack.Patience):
			t.Fatal("the writer is not asked to let go")
		}
		s.WantCount(t, 1, `select count(*) from uploads where id = $1`, id)
		stack.Must(t, lease.Release(ctx))
		stack.Must(t, stack.Receive(t, "erasure", done))
		stack.WantErr(t, s.API.InTenant(s.Ctx, func(tx storage.Tx) error {
			return tx.Advance(s.Ctx, id, lease.Fence(), storage.Progress{From: 5, To: 6, TailSize: 1})
		}), storage.ErrFenced)
		return nil
	}))
	if left := objectsOf(t, s); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
}

// A manager whose token covers some projects decides on nothing that goes beyond them.
func TestErasureIsForManagersOfAll(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	e := s.Erasures
	some := tenant.With(t.Context(), tenant.Identity{Tenant: s.ID, User: "x", Role: tenant.Constructora, Projects: []string{"torre"}})
	for name, ctx := range map[string]context.Context{
		"empleado": s.Ctx, "inversionista": s.As(t.Context(), "x", tenant.Inversionista), "of a project": some,
	} {
		_, err := e.Request(ctx, erasure.Request{User: "ana"})
		stack.WantErr(t, err, tenant.ErrForbidden)
		_, err = e.List(ctx, uuid.Nil, 10)
		stack.WantErr(t, err, tenant.ErrForbidden)
		if _, err = e.MayExport(ctx, s.ID); err == nil {
			t.Errorf("%s may export", name)
		}
	}
	jefa := s.As(t.Context(), "jefa", tenant.Constructora)
	_, err := e.MayExport(jefa, s.AddTenant(t).ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = e.MayExport(s.As(t.Context(), "op", tenant.Admin), uuid.New())
	stack.WantErr(t, err, storage.ErrNotFound)
	for _, r := range []erasure.Request{{}, {User: "a", Tenant: true}, {User: "a\x00b"}} {
		_, err := e.Request(jefa, r)
		stack.WantErr(t, err, erasure.ErrBadRequest)
	}
	_, err = e.Request(jefa, erasure.Request{Upload: uuid.New()})
	stack.WantErr(t, err, storage.ErrNotFound)
}

// Objects in quarantine are removed with their upload, their user and their tenant.
func TestErasureEmptiesQuarantine(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*testing.T, *hookstest.Tenant, uuid.UUID){
		"upload": func(t *testing.T, s *hookstest.Tenant, id uuid.UUID) {
			t.Helper()
			_, err := s.Erasures.EraseQuarantined(s.As(t.Context(), "olga", tenant.Admin), id)
			stack.Must(t, err)
			s.Put(t, s.Keys(id).Quarantine(8)) // which no row names
			s.Multipart(t, s.Keys(id).Quarantine(9), hookstest.Content)
		},
		"deleted": func(t *testing.T, s *hookstest.Tenant, id uuid.UUID) {
			t.Helper()
			stack.Must(t, s.Erasures.Delete(s.Ctx, id))
			s.Exec(t, `update uploads set purge_at = now() where id = $1`, id)
		},
		"user": func(t *testing.T, s *hookstest.Tenant, _ uuid.UUID) {
			t.Helper()
			_, err := s.Erasures.Request(s.As(t.Context(), "jefa", tenant.Constructora), erasure.Request{User: "ana"})
			stack.Must(t, err)
		},
		"tenant": func(t *testing.T, s *hookstest.Tenant, _ uuid.UUID) {
			t.Helper()
			s.Put(t, s.Keys(uuid.Must(uuid.NewV7())).Quarantine(1)) // no row names its upload
			e, err := s.Erasures.Request(s.As(t.Context(), "one", tenant.Admin), erasure.Request{Tenant: true})
			stack.Must(t, err)
			_, err = s.Erasures.Approve(s.As(t.Context(), "two", tenant.Admin), e.ID)
			stack.Must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := hookstest.NewTenant(t)
			other := s.AddTenant(t)
			other.Sound(t)
			_, theirs := other.Quarantine(t)
			id, _ := s.Quarantine(t)
			ask(t, s, id)
			stack.Must(t, s.Erase(t))
			stack.Must(t, s.Erase(t))
			for _, o := range s.S3(t) {
				if strings.Contains(o, s.ID.String()) {
					t.Errorf("S3 still has %s", o)
				}
			}
			s.WantCount(t, 0, `select (select count(*) from scans where tenant_id = $1) + (select count(*) from uploads where tenant_id = $1)`, s.ID)
			other.WantObject(t, theirs, true)
		})
	}
}

// An admin of the installation with a token for all projects may erase an upload in quarantine, and no other upload that way.
func TestEraseQuarantinedIsForAdmins(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	id, _ := s.Quarantine(t)
	clean, _, _ := s.Complete(t)
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		_, err := s.Erasures.EraseQuarantined(s.As(t.Context(), "x", role), id)
		stack.WantErr(t, err, tenant.ErrForbidden)
	}
	_, err := s.Erasures.EraseQuarantined(s.As(t.Context(), "olga", tenant.Admin), clean)
	stack.WantErr(t, err, quarantine.ErrNotQuarantined)
	_, err = s.Erasures.EraseQuarantined(s.AddTenant(t).As(t.Context(), "olga", tenant.Admin), id)
	stack.WantErr(t, err, storage.ErrNotFound)
}
