package storage_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// completed makes an upload that has gone all the way, under a client id.
func (d *database) completed(t *testing.T, ctx context.Context, clientID string) uuid.UUID {
	t.Helper()
	n := anUpload(10)
	n.ClientID = clientID
	d.must(t, ctx, func(tx storage.Tx) error {
		if err := tx.CreateUpload(ctx, n); err != nil {
			return err
		}
		_, err := tx.MarkUploaded(ctx, n.ID, "key", make([]byte, 32))
		return err
	})
	must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, n.ID, 1); err != nil {
			return err
		}
		return tx.Complete(ctx, n.ID, storage.Results{DetectedType: "image/png"})
	}))
	return n.ID
}

func (d *database) delete(t *testing.T, ctx context.Context, id uuid.UUID, keep time.Duration) {
	t.Helper()
	d.must(t, ctx, func(tx storage.Tx) error {
		_, err := tx.Delete(ctx, id, keep)
		return err
	})
}

// What is deleted does not exist: not for any method, not for a statement of the server's role that asks for nothing but
// the row, and not under its client id. Its quota stays charged. Restored it is as it was.
func TestDeletedUploadDoesNotExist(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.completed(t, ctx, "IMG_1")
	before := d.upload(t, ctx, id)
	d.delete(t, ctx, id, time.Hour)

	for name, fn := range map[string]func(storage.Tx) error{
		"read":      func(tx storage.Tx) error { _, err := tx.Upload(ctx, id); return err },
		"whole":     func(tx storage.Tx) error { _, _, err := tx.Whole(ctx, id); return err },
		"timeline":  func(tx storage.Tx) error { _, err := tx.Timeline(ctx, id, 0, 10); return err },
		"client id": func(tx storage.Tx) error { _, err := tx.UploadByClientID(ctx, "ana", "IMG_1"); return err },
	} {
		if err := d.API.InTenant(ctx, fn); err == nil {
			t.Errorf("%s finds it", name)
		} else {
			wantErr(t, err, storage.ErrNotFound)
		}
	}
	d.must(t, ctx, func(tx storage.Tx) error {
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
		_, err := d.Admin(t).Exec(t.Context(), `update uploads set status = $2 where id = $1`, id, status)
		must(t, err)
		for what, fn := range map[string]func(storage.Tx) error{
			"begins":    func(tx storage.Tx) error { return tx.MarkProcessing(ctx, id, 2) },
			"completes": func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) },
			"fails":     func(tx storage.Tx) error { return tx.Fail(ctx, id, storage.Failure{Reason: "lost"}) },
			"loses":     func(tx storage.Tx) error { return tx.Lose(ctx, id, "key", storage.Failure{Reason: "lost"}) },
		} {
			if err := d.Worker.InTenant(ctx, fn); !errors.Is(err, storage.ErrWrongStatus) {
				t.Errorf("a worker %s it: %v", what, err)
			}
		}
	}
	_, err := d.Admin(t).Exec(t.Context(), `update uploads set status = 'completed' where id = $1`, id)
	must(t, err)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Delete(ctx, id, time.Hour); return err }), storage.ErrWrongStatus)
	if got := d.room(t, ctx); got != 990 {
		t.Errorf("%d bytes are left, not 990", got)
	}
	d.must(t, ctx, func(tx storage.Tx) error {
		us, err := tx.Uploads(ctx, storage.Page{Limit: 10, Deleted: true})
		if len(us) != 1 || us[0].DeletedAt == nil || us[0].PurgeAt == nil || us[0].PurgeAt.Sub(*us[0].DeletedAt) != time.Hour {
			t.Errorf("the list of deleted ones is %+v", us)
		}
		return err
	})

	elsewhere := tenant.With(ctx, tenant.Identity{Tenant: tenantOf(t, ctx), User: "x", Role: tenant.Constructora, Projects: []string{"other"}})
	d.must(t, elsewhere, func(tx storage.Tx) error {
		us, err := tx.Uploads(elsewhere, storage.Page{Limit: 10, Deleted: true})
		if len(us) != 0 {
			t.Errorf("a manager of another project sees %+v", us)
		}
		return err
	})
	wantErr(t, d.API.InTenant(elsewhere, func(tx storage.Tx) error { _, err := tx.Restore(elsewhere, id); return err }), storage.ErrNotFound)

	d.must(t, ctx, func(tx storage.Tx) error { _, err := tx.Restore(ctx, id); return err })
	after := d.upload(t, ctx, id)
	before.UpdatedAt, after.UpdatedAt = time.Time{}, time.Time{}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	var events []storage.Event
	d.must(t, ctx, func(tx storage.Tx) error {
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
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.completed(t, ctx, "IMG_1")
	d.delete(t, ctx, id, time.Hour)
	second := d.completed(t, ctx, "IMG_1")
	restore := func(id uuid.UUID) error {
		return d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Restore(ctx, id); return err })
	}
	wantErr(t, restore(id), storage.ErrDuplicateClientID)
	d.delete(t, ctx, second, 0)
	wantErr(t, restore(second), storage.ErrNotFound)
	must(t, restore(id))
	wantErr(t, restore(id), storage.ErrNotFound)

	// A restore that comes with the purge: one of the two.
	third := d.completed(t, ctx, "IMG_3")
	d.delete(t, ctx, third, time.Hour)
	_, err := d.Admin(t).Exec(t.Context(), `update uploads set purge_at = now() where id = $1`, third)
	must(t, err)
	must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Seal(ctx, third); return err }))
	wantErr(t, restore(third), storage.ErrNotFound)
	wantErr(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Seal(ctx, id); return err }), storage.ErrWrongStatus)
}

// Whatever a program of ours does, Postgres keeps two people to the erasure of a tenant, and takes no uploads from then on.
func TestTenantErasureNeedsTwo(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	who, err := tenant.From(ctx)
	must(t, err)
	var e storage.Erasure
	d.must(t, ctx, func(tx storage.Tx) (err error) {
		e, err = tx.RequestErasure(ctx, storage.EraseTenant, "")
		return err
	})
	for name, sql := range map[string]string{
		"by the same": `update erasures set state = 'running', approved_by = requested_by, approved_at = now() where id = $1`,
		"by nobody":   `update erasures set state = 'running' where id = $1`,
	} {
		err := d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.Exec(ctx, sql, e.ID); return err })
		if sqlState(err) != "23514" {
			t.Errorf("approval %s: %v", name, err)
		}
	}
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.ApproveErasure(ctx, e.ID); return err }), storage.ErrSamePerson)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.RequestErasure(ctx, storage.EraseTenant, ""); return err }), storage.ErrErasing)
	who.User = "ben"
	ben := tenant.With(ctx, who)
	d.must(t, ben, func(tx storage.Tx) error { _, err := tx.ApproveErasure(ben, e.ID); return err })
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, anUpload(1)) }), storage.ErrQuotaExceeded)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.CancelErasure(ctx, e.ID); return err }), storage.ErrWrongStatus)
}

// Each table with a tenant is exported, or there is a reason.
func TestExportHasEveryTable(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	exported := storage.ExportedTables()
	for _, table := range tenantTables(t, d.Admin(t)) {
		reason, left := storage.NotExported[table]
		if has := slices.Contains(exported, table); has == left || left && reason == "" {
			t.Errorf("%s: exported %t, left out %t because %q", table, has, left, reason)
		}
	}
	ctx, _ := d.everyRow(t)
	for _, s := range storage.ExportSections() {
		d.must(t, ctx, func(tx storage.Tx) error {
			rows, err := tx.Export(ctx, s, "", 10)
			if err != nil || len(rows) == 0 {
				return err
			}
			if len(rows) != 1 {
				t.Errorf("%s has %d rows", s.Type, len(rows))
			}
			more, err := tx.Export(ctx, s, rows[0].Key, 10)
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
	d := newDatabase(t)
	tables, err := d.Worker.TenantTables(t.Context())
	must(t, err)
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	for _, table := range tenantTables(t, d.Admin(t)) {
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
		must(t, d.Admin(t).QueryRow(t.Context(), `
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
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	batch, ids := d.batch(t, ctx, 3, 10)
	for _, id := range ids {
		d.must(t, ctx, func(tx storage.Tx) error {
			_, err := tx.MarkUploaded(ctx, id, "key", make([]byte, 32))
			return err
		})
	}
	worker := func(fn func(tx storage.Tx) error) { t.Helper(); must(t, d.Worker.InTenant(ctx, fn)) }
	worker(func(tx storage.Tx) error { return tx.MarkProcessing(ctx, ids[0], 1) })
	worker(func(tx storage.Tx) error { return tx.Complete(ctx, ids[0], storage.Results{}) })
	worker(func(tx storage.Tx) error {
		return tx.Fail(ctx, ids[1], storage.Failure{Reason: storage.ReasonUnreadable})
	})
	if b := d.readBatch(t, ctx, batch); b.CompletedAt != nil {
		t.Fatal("the batch has ended before its last upload")
	}
	d.delete(t, ctx, ids[2], time.Hour)
	if b := d.readBatch(t, ctx, batch); b.CompletedAt == nil || !b.Failed {
		t.Errorf("without what it waited for: %+v", b)
	}
	d.delete(t, ctx, ids[1], time.Hour)
	if b := d.readBatch(t, ctx, batch); b.CompletedAt == nil || b.Failed {
		t.Errorf("without what had failed: %+v", b)
	}
	if got, want := d.announced(t, batch), []string{"batch.failed", "batch.completed"}; !slices.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
	d.must(t, ctx, func(tx storage.Tx) error { _, err := tx.Restore(ctx, ids[2]); return err })
	if b := d.readBatch(t, ctx, batch); b.CompletedAt != nil {
		t.Errorf("with one that is to be processed: %+v", b)
	}
	worker(func(tx storage.Tx) error { return tx.MarkProcessing(ctx, ids[2], 1) })
	worker(func(tx storage.Tx) error { return tx.Complete(ctx, ids[2], storage.Results{}) })
	if b := d.readBatch(t, ctx, batch); b.CompletedAt == nil || b.Failed {
		t.Errorf("after that: %+v", b)
	}
}
