// Package storage is the door to Postgres: tenants and their quota, uploads and their states, where an upload's bytes are,
// the timeline, announcements, the audit log and the schema. Features keep their own SQL, as functions over a [Tx]. Package
// storage knows neither S3 nor HTTP.
//
// All tenant data goes through [DB.InTenant]. Two things keep tenants apart there, each sufficient alone: row-level security,
// and the tenant that every statement names.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/tenant"
)

// Sentinel errors that callers branch on.
var (
	// ErrNotFound says that the row does not exist for this tenant; another tenant's row is the same.
	ErrNotFound = errors.New("not found")
	// ErrQuotaExceeded says that the tenant has no room for an upload of this size.
	ErrQuotaExceeded = errors.New("quota exceeded")
	// ErrDuplicateClientID says that this user already has an upload under the same client id.
	ErrDuplicateClientID = errors.New("client id already in use")
	// ErrFenced says that the caller has lost its lease: another request may be writing.
	ErrFenced = errors.New("lease lost")
	// ErrNotYours says that the upload is another user's, and that this one may only read it.
	ErrNotYours = errors.New("upload belongs to another user")
	// ErrWrongStatus says that a move does not start from the state that the upload is in.
	ErrWrongStatus = errors.New("upload is in another status")
)

// Config says how to reach Postgres.
type Config struct {
	// URL is a libpq connection URL. LISTEN connections use it too, so it must not lead through a
	// pooler in transaction mode. Its parameter pool_max_conns bounds the pool; 20 without it. Connections
	// that are idle for pool_max_conn_idle_time, 5 s without it, are closed.
	URL telemetry.Secret `name:"database-url" placeholder:"URL" help:"URL of the Postgres database, such as postgres://tramo_api:PASSWORD@db:5432/tramo. tramo serve connects as tramo_api, which row-level security binds; tramo-worker and the other commands of tramo as tramo_worker; tramo migrate as a role that may create roles."`
	// Replica is this process's name in timelines; "" leaves them without.
	Replica string `kong:"-"`
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	if c.URL == "" {
		return errors.New("TRAMO_DATABASE_URL: a URL such as postgres://tramo_api:PASSWORD@db:5432/tramo is needed")
	}
	if _, err := pgxpool.ParseConfig(string(c.URL)); err != nil {
		// pgx prints the URL with its password replaced.
		return fmt.Errorf("TRAMO_DATABASE_URL: not a Postgres URL: %w", err)
	}
	return nil
}

// Warnings reports what is valid and dangerous.
func (c Config) Warnings() []string {
	pc, err := pgxpool.ParseConfig(string(c.URL))
	if err != nil {
		return nil
	}
	plain := pc.ConnConfig.TLSConfig == nil && !telemetry.IsThisMachine(pc.ConnConfig.Host)
	for _, f := range pc.ConnConfig.Fallbacks {
		plain = plain || f.TLSConfig == nil && !telemetry.IsThisMachine(f.Host)
	}
	if plain {
		return []string{"TRAMO_DATABASE_URL: rows and the password may go over the network in plain text; add sslmode=verify-full"}
	}
	return nil
}

// A DB is a pool of connections to Tramo's database. It is safe for concurrent use.
type DB struct {
	pool     *pgxpool.Pool
	replica  string
	notifier *notifier
}

// Open connects to the database. The caller closes it.
func Open(ctx context.Context, c Config) (*DB, error) {
	pc, err := pgxpool.ParseConfig(string(c.URL))
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	if !strings.Contains(string(c.URL), "pool_max_conns") {
		pc.MaxConns = 20
	}
	if !strings.Contains(string(c.URL), "pool_max_conn_idle_time") {
		pc.MaxConnIdleTime = 5 * time.Second
		pc.HealthCheckPeriod = time.Second
	}
	if !strings.Contains(string(c.URL), "pool_ping_timeout") {
		// Idle connections are pinged before use. One that was lost silently must not delay a request for long.
		pc.PingTimeout = time.Second
	}
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("connect to database: %w", err)
	}
	db := &DB{pool: pool, replica: c.Replica}
	db.notifier = newNotifier(db.notify)
	return db, nil
}

// Close sends pending notifications, waits for connections in use and closes all.
func (db *DB) Close() {
	db.notifier.close()
	db.pool.Close()
}

// Pool is for River, and for statements over all tenants that need an operator's role. The data of one tenant is read and
// written in [DB.InTenant].
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping database: %w", err)
	}
	return nil
}

// RequireTenantIsolation returns an error unless row-level security binds this connection's role and every
// role that it can become: a superuser, a role with BYPASSRLS and the owner would all read every tenant.
func (db *DB) RequireTenantIsolation(ctx context.Context) error {
	var role string
	var free bool
	err := db.pool.QueryRow(ctx, `
		select current_user, bool_or(rolsuper or rolbypassrls or rolname = 'tramo_owner')
		from pg_roles where pg_has_role(current_user, oid, 'member')`).Scan(&role, &free)
	if err != nil {
		return fmt.Errorf("check the database role: %w", err)
	}
	if free {
		return fmt.Errorf("database role %q is not bound by row-level security; connect as tramo_api", role)
	}
	return nil
}

// RequireOperator returns an error unless this connection's role sees every tenant, as the worker pool
// and the operator's commands need it.
func (db *DB) RequireOperator(ctx context.Context) error {
	var role string
	var free bool
	err := db.pool.QueryRow(ctx, `
		select rolname, rolsuper or rolbypassrls from pg_roles where rolname = current_user`).Scan(&role, &free)
	if err != nil {
		return fmt.Errorf("check the database role: %w", err)
	}
	if !free {
		return fmt.Errorf("database role %q sees one tenant at a time; connect as tramo_worker", role)
	}
	return nil
}

// A Tx is a transaction that acts for one tenant. Its methods name that tenant in every statement.
type Tx struct {
	pgx.Tx
	Tenant uuid.UUID
	Who    tenant.Identity

	pipeline *pipeline // also Tx
	replica  string
	changes  *changes
	after    *[]func()
}

// AfterCommit has do called once the transaction is committed, before [DB.InTenant] returns. It is not called if the answer to
// the commit is lost.
func AfterCommit(tx Tx, do func()) { *tx.after = append(*tx.after, do) }

// A Setting holds until a transaction ends.
type Setting struct{ name, value string }

var (
	// Lazily is for data that a crash of Postgres may lose: the commit does not wait for the disk.
	Lazily = Setting{"synchronous_commit", "off"}
	// PlannedOnce is for statements that find rows by their keys: Postgres plans each once for a connection, and not for the
	// values of each execution, which takes longer than to execute it.
	PlannedOnce = Setting{"plan_cache_mode", "force_generic_plan"}
)

// InTenant runs fn in a transaction scoped to the tenant in ctx and commits unless fn fails. Without a
// tenant it returns [tenant.ErrNoIdentity]. S3 is never called from fn.
func (db *DB) InTenant(ctx context.Context, fn func(Tx) error, settings ...Setting) error {
	id, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	scope, err := scopeOf(id)
	if err != nil {
		return err
	}
	var noted, told changes
	var after []func()
	err = pgx.BeginTxFunc(ctx, beginner{db.pool, slices.Concat(scope, settings)}, pgx.TxOptions{}, func(tx pgx.Tx) error {
		err := fn(Tx{Tx: tx, Tenant: id.Tenant, Who: id, pipeline: tx.(*pipeline), replica: db.replica, changes: &noted, after: &after})
		if err == nil {
			told = noted
		}
		return err
	})
	// Also after a failed commit: it may have succeeded and only its answer was lost. A needless notification costs a read.
	db.notifier.note(told)
	if err != nil {
		return err
	}
	for _, do := range after {
		do()
	}
	return nil
}

// unlessIdle ends the transaction of a process that is frozen or cut off: its row locks would block others, and the takeover
// of its leases. Transactions wait for nothing but Postgres, so a longer idle time is a fault.
var unlessIdle = Setting{"idle_in_transaction_session_timeout", "5s"}

// scopeOf are the settings that row-level security reads.
func scopeOf(id tenant.Identity) ([]Setting, error) {
	scope := []Setting{{"app.tenant_id", id.Tenant.String()}}
	if id.Projects != nil {
		for _, p := range id.Projects {
			if p == "" || strings.Contains(p, ",") { // an empty list would lift the limit
				return nil, fmt.Errorf("a token's project may not be %q", p)
			}
		}
		if len(id.Projects) == 0 {
			return nil, errors.New("a token's list of projects is empty")
		}
		scope = append(scope, Setting{"app.projects", strings.Join(id.Projects, ",")})
	}
	if id.Role.SeesOnlyCompleted() {
		scope = append(scope, Setting{"app.completed_only", "yes"})
	}
	return scope, nil
}

// IsUnavailable reports whether err says that Postgres could not be reached, is going down, or went away in the middle of a
// query: a later try may do better.
func IsUnavailable(err error) bool {
	var connect *pgconn.ConnectError
	// PostgreSQL documentation, Appendix A: class 08, connection exception; 53, insufficient resources;
	// 25P03, idle_in_transaction_session_timeout.
	return errors.As(err, &connect) || isBroken(err) || hasCode(err, "08", "53", "25P03")
}

// isBroken reports whether err says that a connection has ended, or is ended by Postgres (57P0x, operator intervention).
func isBroken(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return !errors.As(err, &connect) && (errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, pgconn.ErrConnClosed) || hasCode(err, "57P"))
}

// hasCode reports whether err is one of Postgres whose code begins with one of these.
func hasCode(err error, prefixes ...string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(pgErr.Code, p) })
}
