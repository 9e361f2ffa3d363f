package storage

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock under which one process at a time migrates: "tramo" in ASCII.
const migrationLock = 0x7472616d6f

// Passwords for the roles that log in. An empty one leaves the role unchanged; a new role then
// accepts no password.
type Passwords struct {
	API    string
	Worker string
}

// Migrate brings the schema, River's tables and the roles up to date. It is safe to run from many
// processes at once and beside the previous release. The URL's role must be allowed to create roles.
func Migrate(ctx context.Context, c Config, p Passwords) error {
	lock, err := pgx.Connect(ctx, string(c.URL))
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer lock.Close(context.WithoutCancel(ctx)) // closing releases the lock
	if _, err := lock.Exec(ctx, `select pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return fmt.Errorf("wait for other migrations: %w", err)
	}
	if err := migrateTramo(ctx, string(c.URL)); err != nil {
		return err
	}
	if err := migrateRiver(ctx, string(c.URL)); err != nil {
		return err
	}
	return setPasswords(ctx, lock, p)
}

func migrateTramo(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("parse database URL: %w", err)
	}
	db := stdlib.OpenDB(*config)
	defer db.Close() // it has nothing to flush
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the schema: %w", err)
	}
	return nil
}

// riverGrants gives the API's role only what InsertManyFastTx needs, and only for jobs of its tenant: that is a COPY, which
// Postgres refuses for a table with row-level security, so a trigger looks at each job. The role cannot read jobs, whose
// arguments are of all tenants.
const riverGrants = `
revoke insert on river_job from tramo_api;
grant insert (args, created_at, kind, max_attempts, metadata, priority, queue, scheduled_at, state, tags, unique_key, unique_states)
	on river_job to tramo_api;
create or replace trigger own before insert on river_job for each row
	when (current_user = 'tramo_api') execute function own_job();
grant usage on sequence river_job_id_seq to tramo_api, tramo_worker;
grant select, insert, update, delete on river_job, river_leader, river_queue, river_notification to tramo_worker;
grant usage on sequence river_notification_id_seq to tramo_worker`

func migrateRiver(ctx context.Context, url string) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("parse database URL: %w", err)
	}
	config.MaxConns = 1
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `set role tramo_owner`)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("read the queue's migrations: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate the queue: %w", err)
	}
	if _, err := pool.Exec(ctx, riverGrants); err != nil {
		return fmt.Errorf("grant the queue: %w", err)
	}
	return nil
}

func setPasswords(ctx context.Context, c *pgx.Conn, p Passwords) error {
	for role, password := range map[string]string{"tramo_api": p.API, "tramo_worker": p.Worker} {
		if password == "" {
			continue
		}
		// A utility statement takes no parameters, so the server quotes the literal first.
		var alter string
		err := c.QueryRow(ctx, `select format('alter role %I password %L', $1::text, $2::text)`, role, password).Scan(&alter)
		if err != nil {
			return fmt.Errorf("set the password of %s: %w", role, err)
		}
		if err := alterRole(ctx, c, alter); err != nil {
			return fmt.Errorf("set the password of %s: %w", role, err)
		}
	}
	return nil
}

// alterRole repeats the statement while others alter the same role. Roles belong to the cluster, but the migration lock to
// the database, and Postgres fails the second statement instead of waiting.
func alterRole(ctx context.Context, c *pgx.Conn, alter string) error {
	for {
		_, err := c.Exec(ctx, alter)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Message != "tuple concurrently updated" {
			return err
		}
	}
}
