package storage_test

import (
	"context"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// Kill Postgres in the middle of a query, and ask again while it is down: both are trouble that passes, which clients are told
// to wait for.
func TestKilledPostgresIsUnavailable(t *testing.T) {
	t.Parallel()
	d, postgres := storagetest.Alone(t, stack.PostgresConfig{})
	ctx := d.NewTenant(t, 1<<20)
	ended := make(chan error, 1)
	go func() {
		ended <- d.API.InTenant(ctx, func(tx storage.Tx) error {
			_, err := tx.Exec(context.WithoutCancel(ctx), "select pg_sleep(600)")
			return err
		})
	}()
	admin := d.Admin(t)
	stack.Until(t, "query that runs", func() (runs bool) {
		stack.Must(t, admin.QueryRow(ctx, `select exists (select from pg_stat_activity where query = 'select pg_sleep(600)' and state = 'active')`).Scan(&runs))
		return runs
	})
	postgres.Kill()
	if err := stack.Receive(t, "end of the query", ended); !storage.IsUnavailable(err) {
		t.Errorf("in the middle of a query: %v", err)
	}
	if err := d.API.Ping(ctx); !storage.IsUnavailable(err) {
		t.Errorf("while it is down: %v", err)
	}
}

// No transaction fails because the pool's connections are those of a Postgres that was restarted meanwhile.
func TestRestartedPostgresIsAvailable(t *testing.T) {
	t.Parallel()
	d, postgres := storagetest.Alone(t, stack.PostgresConfig{})
	ctx := d.NewTenant(t, 1<<20)
	const connections = 3
	var open errgroup.Group
	all := make(chan struct{}, connections)
	done := make(chan struct{})
	for range connections {
		open.Go(func() error {
			return d.API.InTenant(ctx, func(tx storage.Tx) error {
				_, err := tx.Exec(ctx, "select 1")
				all <- struct{}{}
				<-done
				return err
			})
		})
	}
	for range connections {
		stack.Receive(t, "open transaction", all)
	}
	close(done)
	stack.Must(t, stack.Ended(t, "transactions", open.Wait))
	stack.Must(t, postgres.Restart(ctx))
	for range connections {
		stack.Must(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
			storage.Later(tx, "begin on a broken connection", "select 1")
			return nil
		}))
	}
}
