package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const pgSocketName = ".s.PGSQL.5432"

// PostgresConfig says where and how a private Postgres keeps its data.
type PostgresConfig struct {
	// Dir holds the cluster; it is created when empty or missing. Without Dir the cluster lives in a temporary
	// directory that Stop removes.
	Dir string
	// Durable keeps fsync on. Tests leave it off: they survive Kill all the same, though not a power cut.
	Durable bool
	// Log receives what Postgres prints. Nil discards it.
	Log io.Writer
}

// Postgres is a private server that listens on a unix socket only. Its superuser is postgres, and whoever
// can reach the socket is trusted; the socket's directory is closed to other users. Its Stop does not wait for clients.
type Postgres struct {
	daemon
	cfg    PostgresConfig
	bin    string
	as     *account // nil: run as ourselves
	socket string   // its directory

	migrating sync.Mutex // see Installation
	migrated  bool
}

// StartPostgres starts the newest Postgres found on this machine and returns once it accepts connections. As root it
// runs as the user postgres, because Postgres refuses root.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	p := &Postgres{cfg: cfg}
	if err := p.begin(ctx, time.Minute, p.prepare, p.run); err != nil {
		return nil, err
	}
	return p, nil
}

// URL returns the address of database for user.
func (p *Postgres) URL(user, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {p.socket}, "port": {"5432"}, "sslmode": {"disable"}}.Encode(),
	}
	return u.String()
}

// AdminURL returns the superuser's address of the database postgres.
func (p *Postgres) AdminURL() string { return p.URL("postgres", "postgres") }

// CreateDatabase creates the database name as a copy of template; an empty template means Postgres' own. No client
// may be connected to the template meanwhile.
func (p *Postgres) CreateDatabase(ctx context.Context, name, template string) error {
	conn, err := pgx.Connect(ctx, p.AdminURL())
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	sql := "create database " + pgx.Identifier{name}.Sanitize()
	if template != "" {
		sql += " template " + pgx.Identifier{template}.Sanitize()
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func (p *Postgres) prepare(ctx context.Context) (err error) {
	if p.bin, err = findPostgres(); err != nil {
		return err
	}
	if p.as, err = postgresAccount(); err != nil {
		return err
	}
	if p.cfg.Dir, err = p.private(p.cfg.Dir, "postgres"); err != nil {
		return err
	}
	if err := awaitOldPostmaster(ctx, p.cfg.Dir); err != nil {
		return err
	}
	if p.socket, err = p.forSocket(p.cfg.Dir, pgSocketName); err != nil {
		return err
	}
	if p.as != nil {
		for _, dir := range []string{p.cfg.Dir, p.socket} {
			if err := errors.Join(p.as.own(dir), p.as.reach(dir)); err != nil {
				return err
			}
		}
	}
	return p.initDB(ctx)
}

func (p *Postgres) initDB(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.cfg.Dir, "PG_VERSION")); err == nil {
		return nil
	}
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("set up a Postgres cluster: %s is not empty and holds no PG_VERSION; empty it or choose another", p.cfg.Dir)
	}
	args := []string{"-D", p.cfg.Dir, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"}
	if !p.cfg.Durable {
		args = append(args, "--no-sync")
	}
	out, err := Run(ctx, p.program("initdb", args...))
	if p.cfg.Log != nil {
		_, _ = io.WriteString(p.cfg.Log, out)
	}
	if err != nil {
		// An interrupted initdb would be refused by the next start as a directory that is not empty.
		return errors.Join(err, os.RemoveAll(p.cfg.Dir))
	}
	return nil
}

func (p *Postgres) run(ctx context.Context) error {
	args := []string{
		"-D", p.cfg.Dir,
		"-c", "listen_addresses=",
		"-c", "port=5432",
		"-c", "unix_socket_directories=" + p.socket,
		"-c", "unix_socket_permissions=0700",
		"-c", "max_connections=300",
		"-c", "log_min_messages=warning",
	}
	if !p.cfg.Durable {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	cfg := p.program("postgres", args...)
	cfg.stop = syscall.SIGINT // fast shutdown: clients are disconnected, data is checkpointed
	// Immediate shutdown. SIGKILL would leave the backends to find out for themselves.
	cfg.onDeath = syscall.SIGQUIT
	for {
		err := p.launch(ctx, cfg, p.ping)
		// After kill -9 of the postmaster its backends hold the shared memory for a moment longer.
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "pre-existing shared memory block") {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.AdminURL())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// program describes one of Postgres' programs.
func (p *Postgres) program(name string, args ...string) ProcessConfig {
	return ProcessConfig{
		Path: filepath.Join(p.bin, name), Args: args, Log: p.cfg.Log, Grace: 30 * time.Second, as: p.as,
		Dir: "/", // ours may be closed to the user postgres
		Env: []string{"PATH=" + p.bin + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"},
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
