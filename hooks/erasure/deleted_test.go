package erasure_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// complete makes an upload that has gone all the way, under a client id.
func complete(t *testing.T, y *hookstest.Tenant, clientID string) uuid.UUID {
	t.Helper()
	id, _, _ := y.Complete(t)
	y.Exec(t, `update uploads set client_id = $2 where id = $1`, id, clientID)
	return id
}

func deleteFor(t *testing.T, y *hookstest.Tenant, id uuid.UUID, retention time.Duration) {
	t.Helper()
	y.Must(t, y.Ctx, func(tx storage.Tx) error {
		_, err := erasure.DeleteUpload(y.Ctx, tx, id, retention)
		return err
	})
}

// tablesWithTenant are all tables that have rows of tenants.
func tablesWithTenant(t *testing.T, y *hookstest.Tenant) []string {
	t.Helper()
	return storagetest.Column[string](t, y.Admin(t), `
		select c.relname::text from pg_class c
		where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = 'public'::regnamespace and (c.relname = 'tenants'
			or exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped))`)
}

// What is deleted does not exist: not for any method, not for a statement of the server's role that asks for nothing but
// the row, and not under its client id. Its quota stays charged. Restored it is as it was.
func TestDeletedUploadDoesNotExist(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	ctx := y.Ctx
	id := complete(t, y, "IMG_1")
	before := y.Upload(t, ctx, id)
	deleteFor(t, y, id, time.Hour)

	for name, fn := range map[string]func(storage.Tx) error{
		"read":      func(tx storage.Tx) error { _, err := tx.Upload(ctx, id); return err },
		"whole":     func(tx storage.Tx) error { _, _, err := tx.UploadAndContent(ctx, id); return err },
		"timeline":  func(tx storage.Tx) error { _, err := tx.Timeline(ctx, id, 0, 10); return err },
		"client id": func(tx storage.Tx) error { _, err := tx.UploadByClientID(ctx, "ana", "IMG_1"); return err },
	} {
		if err := y.API.InTenant(ctx, fn); err == nil {
			t.Errorf("%s finds it", name)
		} else {
			stack.WantErr(t, err, storage.ErrNotFound)
		}
	}
	y.Must(t, y.Ctx, func(tx storage.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, `select count(*) from uploads`).Scan(&n); err != nil || n != 0 {
			t.Errorf("a bare statement sees %d (%v)", n, err)
		}
		us, err := tx.Uploads(ctx, storage.Page{Limit: 10})
		if len(us) != 0 {
			t.Errorf("the list has %d", len(us))
		}
		return err
	})
	// Workers leave one alone that was deleted before they came to it, or while they were at it.
	for _, status := range []string{"uploaded", "processing"} {
		y.Exec(t, `update uploads set status = $2 where id = $1`, id, status)
		for what, fn := range map[string]func(storage.Tx) error{
			"begins":    func(tx storage.Tx) error { return tx.MarkProcessing(ctx, id, 2) },
			"completes": func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) },
			"fails": func(tx storage.Tx) error {
				return tx.Move(ctx, id, storage.MoveFail.Because(storage.Failure{Reason: "lost"}))
			},
			"loses": func(tx storage.Tx) error {
				return tx.Move(ctx, id, storage.MoveLose.Because(storage.Failure{Reason: "lost"}))
			},
		} {
			if err := y.Worker.InTenant(ctx, fn); !errors.Is(err, storage.ErrWrongStatus) {
				t.Errorf("a worker %s it: %v", what, err)
			}
		}
	}
	y.Exec(t, `update uploads set status = 'completed' where id = $1`, id)
	stack.WantErr(t, y.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.DeleteUpload(ctx, tx, id, time.Hour); return err }), storage.ErrWrongStatus)
	y.WantRoom(t, ctx, hookstest.Quota-10)
	y.Must(t, y.Ctx, func(tx storage.Tx) error {
		us, err := tx.Uploads(ctx, storage.Page{Limit: 10, Deleted: true})
		if len(us) != 1 || us[0].DeletedAt == nil || us[0].PurgeAt == nil || us[0].PurgeAt.Sub(*us[0].DeletedAt) != time.Hour {
			t.Errorf("the list of deleted ones is %+v", us)
		}
		return err
	})

	elsewhere := tenant.With(ctx, tenant.Identity{Tenant: y.ID, User: "x", Role: tenant.Constructora, Projects: []string{"other"}})
	y.Must(t, elsewhere, func(tx storage.Tx) error {
		us, err := tx.Uploads(elsewhere, storage.Page{Limit: 10, Deleted: true})
		if len(us) != 0 {
			t.Errorf("a manager of another project sees %+v", us)
		}
		return err
	})
	stack.WantErr(t, y.API.InTenant(elsewhere, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(elsewhere, tx, id); return err }), storage.ErrNotFound)

	y.Must(t, y.Ctx, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(ctx, tx, id); return err })
	after := y.Upload(t, ctx, id)
	before.UpdatedAt, after.UpdatedAt = time.Time{}, time.Time{}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	var events []storage.Event
	y.Must(t, y.Ctx, func(tx storage.Tx) error {
		entries, err := tx.Timeline(ctx, id, 0, 100)
		for _, e := range entries[len(entries)-2:] {
			events = append(events, e.Event)
		}
		return err
	})
	if want := []storage.Event{storage.EventDeleted, storage.EventRestored}; !slices.Equal(events, want) {
		t.Errorf("the timeline ends with %v", events)
	}
}

// Who deleted a file sends it again under the same client id; then the old one cannot come back beside it. One whose time
// is over cannot either.
func TestRestoreTooLate(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	ctx := y.Ctx
	id := complete(t, y, "IMG_1")
	deleteFor(t, y, id, time.Hour)
	second := complete(t, y, "IMG_1")
	restore := func(id uuid.UUID) error {
		return y.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(ctx, tx, id); return err })
	}
	stack.WantErr(t, restore(id), storage.ErrDuplicateClientID)
	deleteFor(t, y, second, 0)
	stack.WantErr(t, restore(second), storage.ErrNotFound)
	stack.Must(t, restore(id))
	stack.WantErr(t, restore(id), storage.ErrNotFound)

	// A restore that comes with the purge: one of the two.
	third := complete(t, y, "IMG_3")
	deleteFor(t, y, third, time.Hour)
	y.Exec(t, `update uploads set purge_at = now() where id = $1`, third)
	y.MustWork(t, ctx, func(tx storage.Tx) error { _, err := erasure.Seal(ctx, tx, third); return err })
	stack.WantErr(t, restore(third), storage.ErrNotFound)
	stack.WantErr(t, y.Worker.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.Seal(ctx, tx, id); return err }), storage.ErrWrongStatus)
}

// Whatever a program of ours does, Postgres keeps two people to the erasure of a tenant, and takes no uploads from then on.
func TestTenantErasureNeedsTwo(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	ctx := y.Ctx
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	var e erasure.Erasure
	y.Must(t, y.Ctx, func(tx storage.Tx) (err error) {
		e, err = erasure.RequestIn(ctx, tx, erasure.OfTenant, "")
		return err
	})
	for name, sql := range map[string]string{
		"by the same": `update erasures set state = 'running', approved_by = requested_by, approved_at = now() where id = $1`,
		"by nobody":   `update erasures set state = 'running' where id = $1`,
	} {
		err := y.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Exec(ctx, sql, e.ID); return err })
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "23514" {
			t.Errorf("approval %s: %v", name, err)
		}
	}
	stack.WantErr(t, y.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.ApproveIn(ctx, tx, e.ID); return err }), erasure.ErrSamePerson)
	stack.WantErr(t, y.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.RequestIn(ctx, tx, erasure.OfTenant, ""); return err }), erasure.ErrErasing)
	who.User = "ben"
	ben := tenant.With(ctx, who)
	y.Must(t, ben, func(tx storage.Tx) error { _, err := erasure.ApproveIn(ben, tx, e.ID); return err })
	stack.WantErr(t, y.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.CreateUpload(ctx, storage.NewUpload{ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 1})
	}), storage.ErrQuotaExceeded)
	stack.WantErr(t, y.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.CancelIn(ctx, tx, e.ID); return err }), storage.ErrWrongStatus)
}

// Each table with a tenant is exported, or there is a reason.
func TestExportHasEveryTable(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	exported := erasure.ExportedTables()
	for _, table := range tablesWithTenant(t, y) {
		reason, left := erasure.NotExported[table]
		if has := slices.Contains(exported, table); has == left || left && reason == "" {
			t.Errorf("%s: exported %t, left out %t because %q", table, has, left, reason)
		}
	}
	y.Complete(t)
	y.Exec(t, fmt.Sprintf(`
		insert into batches (tenant_id, id, project, name, user_id) values ('%[1]s', gen_random_uuid(), 'torre', 'x', 'ana');
		insert into webhook_endpoints (tenant_id, id, url, user_id) values ('%[1]s', gen_random_uuid(), 'https://a.example/', 'ana');
		insert into erasures (tenant_id, id, kind, subject, state, requested_by) values ('%[1]s', gen_random_uuid(), 'user', 'x', 'running', 'ana');
		insert into audit (tenant_id, actor, role, action, outcome) values ('%[1]s', 'ana', 'empleado', 'x', 'done')`, y.ID))
	ctx := y.Ctx
	for _, s := range erasure.Sections() {
		y.Must(t, y.Ctx, func(tx storage.Tx) error {
			rows, err := erasure.Export(ctx, tx, s, "", 10)
			if err != nil {
				return err
			}
			if len(rows) != 1 {
				t.Fatalf("%s has %d rows", s.Type, len(rows))
			}
			more, err := erasure.Export(ctx, tx, s, rows[0].Key, 10)
			if s.Type != "tenant" && len(more) != 0 {
				t.Errorf("%s has %d rows behind the last", s.Type, len(more))
			}
			return err
		})
	}
}

// Erasing reads its tables from the catalog: all that has a tenant, but what must stay.
func TestTenantTablesAreAll(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	tables, err := erasure.TenantTables(t.Context(), y.Worker)
	stack.Must(t, err)
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	for _, table := range tablesWithTenant(t, y) {
		stays := slices.Contains([]string{"audit", "erasures", "tenants"}, table)
		if slices.Contains(names, table) == stays {
			t.Errorf("%s: erased %t", table, !stays)
		}
	}
	// Workers erase, so they need the right to: of each row, and of the user in rows that stay.
	for _, table := range tables {
		needs := "delete"
		if table.User && !table.UserKey {
			needs = "update"
		}
		var may bool
		stack.Must(t, y.Admin(t).QueryRow(t.Context(), `
			select has_table_privilege('tramo_worker', $1::text, 'delete') and has_table_privilege('tramo_worker', $1::text, $2)`,
			table.Name, needs).Scan(&may))
		if !may {
			t.Errorf("tramo_worker cannot erase from %s: it needs %s", table.Name, needs)
		}
	}
	if len(names) == 0 || names[len(names)-1] == "timeline" {
		t.Errorf("the order is %v", names)
	}
}

// A batch has what is there: who deletes the upload that a batch waited for ends it, who deletes the one that had failed
// makes it complete, and who restores one that is to be processed opens it again.
func TestDeletedUploadsLeaveTheirBatch(t *testing.T) {
	t.Parallel()
	y := hookstest.NewTenant(t)
	ctx := y.Ctx
	batch, ids := uuid.Must(uuid.NewV7()), make([]uuid.UUID, 3)
	for i := range ids {
		ids[i], _ = y.Finish(t)
	}
	y.Exec(t, `insert into batches (tenant_id, id, project, name, user_id) values ($1, $2, 'default', 'x', 'ana')`, y.ID, batch)
	y.Exec(t, `update uploads set batch_id = $1`, batch)
	read := func() (b struct{ Ended, Failed bool }) {
		stack.Must(t, y.Admin(t).QueryRow(t.Context(), `select completed_at is not null, failed from batches where id = $1`, batch).Scan(&b.Ended, &b.Failed))
		return b
	}
	worker := func(fn func(tx storage.Tx) error) { t.Helper(); stack.Must(t, y.Worker.InTenant(ctx, fn)) }
	worker(func(tx storage.Tx) error { return tx.MarkProcessing(ctx, ids[0], 1) })
	worker(func(tx storage.Tx) error { return tx.Complete(ctx, ids[0], storage.Results{}) })
	worker(func(tx storage.Tx) error {
		return tx.Move(ctx, ids[1], storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonUnreadable}))
	})
	if b := read(); b.Ended {
		t.Fatal("the batch has ended before its last upload")
	}
	deleteFor(t, y, ids[2], time.Hour)
	if b := read(); !b.Ended || !b.Failed {
		t.Errorf("without what it waited for: %+v", b)
	}
	deleteFor(t, y, ids[1], time.Hour)
	if b := read(); !b.Ended || b.Failed {
		t.Errorf("without what had failed: %+v", b)
	}
	got := storagetest.Column[string](t, y.Admin(t), `select type from announcements where batch_id = $1 order by created_at`, batch)
	if want := []string{"batch.failed", "batch.completed"}; !slices.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
	y.Must(t, y.Ctx, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(ctx, tx, ids[2]); return err })
	if b := read(); b.Ended {
		t.Errorf("with one that is to be processed: %+v", b)
	}
	worker(func(tx storage.Tx) error { return tx.MarkProcessing(ctx, ids[2], 1) })
	worker(func(tx storage.Tx) error { return tx.Complete(ctx, ids[2], storage.Results{}) })
	if b := read(); !b.Ended || b.Failed {
		t.Errorf("after that: %+v", b)
	}
}
