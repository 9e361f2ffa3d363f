package live

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// With a hundred thousand uploads, the queries of feeds and snapshots read only the rows that they return: row-level security
// does not keep indexes from being used.
func TestLiveQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<40)
	admin := d.Admin(t)
	for _, sql := range []string{
		`insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes, status, updated_at)
			select id, gen_random_uuid(), 'ana', 'torre', '{}', 1, 1, 'completed', now() - n * interval '1 minute'
			from tenants, generate_series(10, 50000) n`,
		`insert into contents (tenant_id, upload_id) select tenant_id, id from uploads`,
		`insert into announcements (tenant_id, type, created_at)
			select id, 'x', now() - n * interval '1 minute' from tenants, generate_series(10, 50000) n`,
		`analyze`,
	} {
		_, err := admin.Exec(t.Context(), sql)
		stack.Must(t, err)
	}
	stack.Must(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		for range 3 {
			err := tx.CreateUpload(ctx, storage.NewUpload{
				ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 1,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	scanned := func() (n int64) {
		_, err := admin.Exec(t.Context(), `select pg_stat_force_next_flush(), pg_stat_clear_snapshot()`)
		stack.Must(t, err)
		stack.Must(t, admin.QueryRow(t.Context(), `select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables
			where relname in ('uploads', 'contents', 'announcements')`).Scan(&n))
		return n
	}
	before := scanned()
	stack.Must(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		since, err := clock(ctx, tx)
		stack.Must(t, err)
		since = since.Add(-5 * time.Minute)
		moved, err := movedSince(ctx, tx, since)
		stack.Must(t, err)
		us, err := watched(ctx, tx, filter{user: "ana"}, since, true, 1000)
		stack.Must(t, err)
		again, err := watched(ctx, tx, filter{}, since, false, 1000)
		stack.Must(t, err)
		if len(moved) != 3 || len(us) != 3 || len(again) != 3 {
			t.Errorf("found %d, %d and %d uploads", len(moved), len(us), len(again))
		}
		_, err = announcementsSince(ctx, tx, since)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `select pg_stat_force_next_flush()`)
		return err
	}))
	d.API.Close() // a connection that ends has reported its statistics
	if n := scanned() - before; n > 1000 {
		t.Errorf("%d rows were read without an index", n)
	}
}
