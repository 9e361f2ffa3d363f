package stack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

func TestPostgresDatabaseFromTemplate(t *testing.T) {
	t.Parallel()
	pg := stack.Get(t, ground.Postgres)
	stack.Must(t, pg.CreateDatabase(stack.Context(t), "template of ours", ""))
	exec(t, pg.URL("postgres", "template of ours"), "create table kept (n int)")
	stack.Must(t, pg.CreateDatabase(stack.Context(t), "copy", "template of ours"))
	exec(t, pg.URL("postgres", "copy"), "insert into kept values (1)")
}

// Kill Postgres with -9 between two starts on one directory: what was committed is there, at the same address.
func TestPostgresSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cluster")
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir, Log: t.Output()})
	stack.Must(t, err)
	exec(t, pg.AdminURL(), "create table kept (n int)")
	exec(t, pg.AdminURL(), "insert into kept values (1)")

	pg.Kill()
	stack.Must(t, pg.Restart(t.Context()))
	exec(t, pg.AdminURL(), "insert into kept select n + 1 from kept")
	pg.Kill()

	again, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir, Log: t.Output()})
	stack.Must(t, err)
	var sum int
	conn, err := pgx.Connect(stack.Context(t), again.AdminURL())
	stack.Must(t, err)
	stack.Must(t, conn.QueryRow(stack.Context(t), "select sum(n) from kept").Scan(&sum))
	stack.Must(t, conn.Close(stack.Context(t)))
	stack.Want(t, sum, 3, "sum of committed rows")
	stack.Must(t, again.Stop())
	stack.Must(t, pg.Stop())
}

func TestPostgresFitsBelowAClosedDirectory(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "closed")
	stack.Must(t, os.Mkdir(closed, 0o700))
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: filepath.Join(closed, "cluster"), Durable: true, Log: t.Output()})
	stack.Must(t, err)
	exec(t, pg.AdminURL(), "create table t (n int)")
	info, err := os.Stat(filepath.Join(closed, "cluster"))
	stack.Must(t, err)
	stack.Want(t, info.Mode().Perm(), 0o700, "mode of the cluster's directory")
	stack.Must(t, pg.Stop())
}

func TestPostgresRefusesAForeignDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stack.Must(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("mine"), 0o600))
	if _, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Dir: dir}); err == nil {
		t.Fatal("Postgres set up a cluster among another program's files")
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

func exec(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(stack.Context(t), url)
	stack.Must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(stack.Context(t), sql)
	stack.Must(t, err)
}
