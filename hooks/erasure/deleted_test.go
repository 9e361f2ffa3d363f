package erasure_test

import (
	"errors"
	"fmt"
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

// complete makes a completed upload with a client id.
func complete(t *testing.T, s *hookstest.Tenant, clientID string) uuid.UUID {
	t.Helper()
	id, _, _ := s.Complete(t)
	s.Exec(t, `update uploads set client_id = $2 where id = $1`, id, clientID)
	return id
}

func deleteFor(t *testing.T, s *hookstest.Tenant, id uuid.UUID, retention time.Duration) {
	t.Helper()
	s.Must(t, s.Ctx, func(tx storage.Tx) error {
		_, err := erasure.DeleteUpload(s.Ctx, tx, id, retention)
		return err
	})
}

// tablesWithTenant are all tables that have rows of tenants.
func tablesWithTenant(t *testing.T, s *hookstest.Tenant) []string {
	t.Helper()
	return storagetest.Column[string](t, s.Admin(t), `
		select c.relname::text from pg_class c
		where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = 'public'::regnamespace and (c.relname = 'tenants'
			or exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped))`)
}

// A deleted upload does not exist for any method, for a statement of the server's role that names only the row, or under its
// client id. Its quota stays charged. A restored upload is as it was.
func TestDeletedUploadDoesNotExist(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	ctx := s.Ctx
	id := complete(t, s, "IMG_1")
	before := s.Upload(t, ctx, id)
	deleteFor(t, s, id, time.Hour)

	for name, fn := range map[string]func(storage.Tx) error{
		"read": func(tx storage.Tx) error { _, err := tx.Upload(ctx, id); return err },
		"whole": func(tx storage.Tx) error {
			storage.ReadContent(tx, id, new(storage.Upload), new(storage.Content))
			return nil
		},
		"timeline":  func(tx storage.Tx) error { _, err := tx.Timeline(ctx, id, 0, 10); return err },
		"client id": func(tx storage.Tx) error { _, err := tx.UploadByClientID(ctx, "ana", "IMG_1"); return err },
	} {
		if err := s.API.InTenant(ctx, fn); err == nil {
			t.Errorf("%s finds it", name)
		} else {
			stack.WantErr(t, err, storage.ErrNotFound)
		}
	}
	s.Must(t, s.Ctx, func(tx storage.Tx) error {
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
	// Workers do not change an upload that was deleted before its job began, or during it.
	for _, status := range []string{"uploaded", "processing"} {
		s.Exec(t, `update uploads set status = $2 where id = $1`, id, status)
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
			if err := s.Worker.InTenant(ctx, fn); !errors.Is(err, storage.ErrWrongStatus) {
				t.Errorf("a worker %s it: %v", what, err)
			}
		}
	}
	s.Exec(t, `update uploads set status = 'completed' where id = $1`, id)
	stack.WantErr(t, s.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.DeleteUpload(ctx, tx, id, time.Hour); return err }), storage.ErrWrongStatus)
	s.WantRoom(t, ctx, hookstest.Quota-10)
	s.Must(t, s.Ctx, func(tx storage.Tx) error {
		us, err := tx.Uploads(ctx, storage.Page{Limit: 10, Deleted: true})
		if len(us) != 1 || us[0].DeletedAt == nil || us[0].PurgeAt == nil || us[0].PurgeAt.Sub(*us[0].DeletedAt) != time.Hour {
			t.Errorf("the list of deleted ones is %+v", us)
		}
		return err
	})

	elsewhere := tenant.With(ctx, tenant.Identity{Tenant: s.ID, User: "x", Role: tenant.Constructora, Projects: []string{"other"}})
	s.Must(t, elsewhere, func(tx storage.Tx) error {
		us, err := tx.Uploads(elsewhere, storage.Page{Limit: 10, Deleted: true})
		if len(us) != 0 {
			t.Errorf("a manager of another project sees %+v", us)
		}
		return err
	})
	stack.WantErr(t, s.API.InTenant(elsewhere, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(elsewhere, tx, id); return err }), storage.ErrNotFound)

	s.Must(t, s.Ctx, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(ctx, tx, id); return err })
	after := s.Upload(t, ctx, id)
	before.UpdatedAt, after.UpdatedAt = time.Time{}, time.Time{}
	stack.Want(t, after, before, "upload after it was restored")
	var events []storage.Event
	s.Must(t, s.Ctx, func(tx storage.Tx) error {
		entries, err := tx.Timeline(ctx, id, 0, 100)
		for _, e := range entries[len(entries)-2:] {
			events = append(events, e.Event)
		}
		return err
	})
	stack.Want(t, events, []storage.Event{storage.EventDeleted, storage.EventRestored}, "end of the timeline")
}

// A deleted file is sent again under the same client id: then the deleted upload cannot be restored. One whose retention is
// over cannot either.
func TestRestoreTooLate(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	ctx := s.Ctx
	id := complete(t, s, "IMG_1")
	deleteFor(t, s, id, time.Hour)
	second := complete(t, s, "IMG_1")
	restore := func(id uuid.UUID) error {
		return s.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(ctx, tx, id); return err })
	}
	stack.WantErr(t, restore(id), storage.ErrDuplicateClientID)
	deleteFor(t, s, second, 0)
	stack.WantErr(t, restore(second), storage.ErrNotFound)
	stack.Must(t, restore(id))
	stack.WantErr(t, restore(id), storage.ErrNotFound)

	// A restore and a purge at the same time: one of them succeeds.
	third := complete(t, s, "IMG_3")
	deleteFor(t, s, third, time.Hour)
	s.Exec(t, `update uploads set purge_at = now() where id = $1`, third)
	s.MustWork(t, ctx, func(tx storage.Tx) error { _, err := erasure.Seal(ctx, tx, third); return err })
	stack.WantErr(t, restore(third), storage.ErrNotFound)
	stack.WantErr(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.Seal(ctx, tx, id); return err }), storage.ErrWrongStatus)
}

// Postgres itself requires two people for the erasure of a tenant, and refuses uploads from then on.
func TestTenantErasureNeedsTwo(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	ctx := s.Ctx
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	var e erasure.Erasure
	s.Must(t, s.Ctx, func(tx storage.Tx) (err error) {
		e, err = erasure.RequestIn(ctx, tx, erasure.OfTenant, "", 0)
		return err
	})
	for name, sql := range map[string]string{
		"by the same": `update erasures set state = 'running', approved_by = requested_by, approved_at = now() where id = $1`,
		"by nobody":   `update erasures set state = 'running' where id = $1`,
	} {
		err := s.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Exec(ctx, sql, e.ID); return err })
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "23514" {
			t.Errorf("approval %s: %v", name, err)
		}
	}
	stack.WantErr(t, s.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.ApproveIn(ctx, tx, e.ID, 0); return err }), erasure.ErrSamePerson)
	stack.WantErr(t, s.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.RequestIn(ctx, tx, erasure.OfTenant, "", 0); return err }), erasure.ErrErasing)
	who.User = "ben"
	ben := tenant.With(ctx, who)
	s.Must(t, ben, func(tx storage.Tx) error { _, err := erasure.ApproveIn(ben, tx, e.ID, 0); return err })
	stack.WantErr(t, s.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.CreateUpload(ctx, storage.NewUpload{ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 1})
	}), storage.ErrQuotaExceeded)
	stack.WantErr(t, s.API.InTenant(ctx, func(tx storage.Tx) error { _, err := erasure.CancelIn(ctx, tx, e.ID); return err }), storage.ErrWrongStatus)
}

// Each table with a tenant is exported, or there is a reason.
func TestExportHasEveryTable(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	exported := erasure.ExportedTables()
	for _, table := range tablesWithTenant(t, s) {
		reason, left := erasure.NotExported[table]
		if has := slices.Contains(exported, table); has == left || left && reason == "" {
			t.Errorf("%s: exported %t, left out %t because %q", table, has, left, reason)
		}
	}
	s.Complete(t)
	s.Exec(t, fmt.Sprintf(`
		insert into batches (tenant_id, id, project, name, user_id) values ('%[1]s', gen_random_uuid(), 'torre', 'x', 'ana');
		insert into webhook_endpoints (tenant_id, id, url, user_id) values ('%[1]s', gen_random_uuid(), 'https://a.example/', 'ana');
		insert into erasures (tenant_id, id, kind, subject, state, requested_by) values ('%[1]s', gen_random_uuid(), 'user', 'x', 'running', 'ana');
		insert into audit (tenant_id, actor, role, action, outcome) values ('%[1]s', 'ana', 'empleado', 'x', 'done')`, s.ID))
	ctx := s.Ctx
	for _, section := range erasure.Sections() {
		s.Must(t, s.Ctx, func(tx storage.Tx) error {
			rows, err := erasure.Export(ctx, tx, section, "", 10)
			if err != nil {
				return err
			}
			if len(rows) != 1 {
				t.Fatalf("%s has %d rows", section.Type, len(rows))
			}
			more, err := erasure.Export(ctx, tx, section, rows[0].Key, 10)
			if section.Type != "tenant" && len(more) != 0 {
				t.Errorf("%s has %d rows behind the last", section.Type, len(more))
			}
			return err
		})
	}
}

// Erasing reads its tables from the catalog: all with a tenant but those that must stay.
func TestTenantTablesAreAll(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	tables, err := erasure.TenantTables(t.Context(), s.Worker)
	stack.Must(t, err)
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	for _, table := range tablesWithTenant(t, s) {
		stays := slices.Contains([]string{"audit", "audit_seals", "erasures", "tenants"}, table)
		if slices.Contains(names, table) == stays {
			t.Errorf("%s: erased %t", table, !stays)
		}
	}
	// Workers need the right to delete each row, and to change the user in rows that stay.
	for _, table := range tables {
		needs := "delete"
		if table.User && !table.UserKey {
			needs = "update"
		}
		var may bool
		stack.Must(t, s.Admin(t).QueryRow(t.Context(), `
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

// Deleting the last unfinished upload of a batch ends the batch, deleting the only failed one makes it completed, and restoring
// an unprocessed one opens it again.
func TestDeletedUploadsLeaveTheirBatch(t *testing.T) {
	t.Parallel()
	s := hookstest.NewTenant(t)
	ctx := s.Ctx
	batch, ids := uuid.Must(uuid.NewV7()), make([]uuid.UUID, 3)
	for i := range ids {
		ids[i], _ = s.Finish(t)
	}
	s.Exec(t, `insert into batches (tenant_id, id, project, name, user_id) values ($1, $2, 'default', 'x', 'ana')`, s.ID, batch)
	s.Exec(t, `update uploads set batch_id = $1`, batch)
	read := func() (b struct{ Ended, Failed bool }) {
		stack.Must(t, s.Admin(t).QueryRow(t.Context(), `select completed_at is not null, failed from batches where id = $1`, batch).Scan(&b.Ended, &b.Failed))
		return b
	}
	worker := func(fn func(tx storage.Tx) error) { t.Helper(); stack.Must(t, s.Worker.InTenant(ctx, fn)) }
	worker(func(tx storage.Tx) error { return tx.MarkProcessing(ctx, ids[0], 1) })
	worker(func(tx storage.Tx) error { return tx.Complete(ctx, ids[0], storage.Results{}) })
	worker(func(tx storage.Tx) error {
		return tx.Move(ctx, ids[1], storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonUnreadable}))
	})
	if b := read(); b.Ended {
		t.Fatal("the batch has ended before its last upload")
	}
	deleteFor(t, s, ids[2], time.Hour)
	if b := read(); !b.Ended || !b.Failed {
		t.Errorf("without what it waited for: %+v", b)
	}
	deleteFor(t, s, ids[1], time.Hour)
	if b := read(); !b.Ended || b.Failed {
		t.Errorf("without what had failed: %+v", b)
	}
	got := storagetest.Column[string](t, s.Admin(t), `select type from announcements where batch_id = $1 order by created_at`, batch)
	stack.Want(t, got, []string{"batch.failed", "batch.completed"}, "announcements")
	s.Must(t, s.Ctx, func(tx storage.Tx) error { _, err := erasure.RestoreUpload(ctx, tx, ids[2]); return err })
	if b := read(); b.Ended {
		t.Errorf("with one that is to be processed: %+v", b)
	}
	worker(func(tx storage.Tx) error { return tx.MarkProcessing(ctx, ids[2], 1) })
	worker(func(tx storage.Tx) error { return tx.Complete(ctx, ids[2], storage.Results{}) })
	if b := read(); !b.Ended || b.Failed {
		t.Errorf("after that: %+v", b)
	}
}
