package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	pgSocketPrefix = "tramo-pg-"
	pgSocketName   = ".s.PGSQL.5432"
	pgStartTimeout = 60 * time.Second
	pgStopTimeout  = 30 * time.Second
)

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
// can reach the socket is trusted; the socket's directory is closed to other users.
type Postgres struct {
	cfg    PostgresConfig
	bin    string
	as     *account // nil: run as ourselves
	socket string   // its directory
	temp   []string // directories that Stop removes
	child  *child

	migrating sync.Mutex // see Installation
	migrated  bool
}

// StartPostgres starts the newest Postgres found on this machine and returns once it accepts connections. As root it
// runs as the user postgres, because Postgres refuses root.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (_ *Postgres, err error) {
	ctx, cancel := context.WithTimeout(ctx, pgStartTimeout)
	defer cancel()
	p := &Postgres{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()
	if p.bin, err = findPostgres(); err != nil {
		return nil, err
	}
	if p.as, err = postgresAccount(); err != nil {
		return nil, err
	}
	if err := p.makeDirs(ctx); err != nil {
		return nil, err
	}
	if err := p.initDB(ctx); err != nil {
		return nil, err
	}
	if err := p.start(ctx); err != nil {
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

// CreateDatabase creates the database name as a copy of template; an empty template means Postgres' own. Nobody
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

// Stop shuts down without waiting for clients. It may be called twice.
func (p *Postgres) Stop() error {
	err := p.halt()
	for _, dir := range p.temp {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Kill ends the server as kill -9 does. Restart brings it back.
func (p *Postgres) Kill() { p.child.kill() }

// Restart stops the server, if it still runs, and starts it at the same address. Every connection is lost.
func (p *Postgres) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pgStartTimeout)
	defer cancel()
	if err := p.halt(); err != nil {
		return err
	}
	return p.start(ctx)
}

// Pid returns the id of the server's process.
func (p *Postgres) Pid() int { return p.child.pid() }

// Exited is closed when the server has ended, for whatever reason.
func (p *Postgres) Exited() <-chan struct{} { return p.child.done }

// halt is Postgres' "fast shutdown": clients are disconnected, data is checkpointed.
func (p *Postgres) halt() error {
	if p.child == nil {
		return nil
	}
	return p.child.stop(syscall.SIGINT, pgStopTimeout)
}

func (p *Postgres) makeDirs(ctx context.Context) (err error) {
	if p.cfg.Dir == "" {
		if p.cfg.Dir, err = os.MkdirTemp("", "tramo-postgres-"); err != nil {
			return fmt.Errorf("make a directory for Postgres: %w", err)
		}
		p.temp = append(p.temp, p.cfg.Dir)
	}
	if p.cfg.Dir, err = privateDir(p.cfg.Dir); err != nil {
		return fmt.Errorf("make a directory for Postgres: %w", err)
	}
	if err := awaitOldPostmaster(ctx, p.cfg.Dir); err != nil {
		return err
	}
	var temp bool
	if p.socket, temp, err = socketDir(p.cfg.Dir, pgSocketPrefix, pgSocketName); err != nil {
		return err
	}
	if temp {
		p.temp = append(p.temp, p.socket)
	}
	if p.as == nil {
		return nil
	}
	for _, dir := range []string{p.cfg.Dir, p.socket} {
		if err := p.as.own(dir); err != nil {
			return err
		}
		if err := p.as.reach(dir); err != nil {
			return err
		}
	}
	return nil
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
	if err := run(ctx, "initdb", p.command("initdb", args...), p.cfg.Log); err != nil {
		// An interrupted initdb would be refused by the next start as a directory that is not empty.
		return errors.Join(err, removeContents(p.cfg.Dir))
	}
	return nil
}

func (p *Postgres) start(ctx context.Context) error {
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
	for {
		// SIGQUIT: immediate shutdown. SIGKILL would leave the backends to find out for themselves.
		c, err := spawn("postgres", p.command("postgres", args...), syscall.SIGQUIT, p.cfg.Log)
		if err != nil {
			return err
		}
		p.child = c
		err = c.await(ctx, p.ping)
		if err == nil {
			return nil
		}
		// After kill -9 of the postmaster its backends hold the shared memory for a moment longer.
		if c.ended() && ctx.Err() == nil && strings.Contains(c.out.String(), "pre-existing shared memory block") {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		return err
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

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = "/" // ours may be closed to the user postgres
	cmd.Env = []string{"PATH=" + p.bin + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	if p.as != nil {
		cmd.SysProcAttr = p.as.attr()
	}
	return cmd
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

func removeContents(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}
