package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

const database = "tramo"

// devStack is everything that a tramo-dev runs.
type devStack struct {
	cfg   config
	out   *console
	tramo string // the directory of our programs

	services []*service // stopped in reverse order
	mu       sync.Mutex // guards services while they start concurrently

	ownS3                         bool // set once it has started
	serveEnv, workerEnv, adminEnv []string
	extraEnv                      []string // for serve and worker alike
}

func newStack(cfg config) *devStack {
	return &devStack{cfg: cfg, out: &console{w: os.Stderr}}
}

// run starts everything, prints the welcome, and supervises the services until ctx ends.
func (s *devStack) run(ctx context.Context) error {
	began := time.Now()
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.startParts(ctx); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.startPrograms(ctx); err != nil {
		return err
	}
	token, err := s.demoToken(ctx)
	if err != nil {
		return err
	}
	s.welcome(token, time.Since(began))

	var wg sync.WaitGroup
	for _, svc := range s.services {
		wg.Go(func() { svc.supervise(ctx, s.out) })
	}
	wg.Wait()
	return nil
}

// stop stops the services in reverse order: the server before the worker, and Postgres last.
func (s *devStack) stop() error {
	var errs []error
	for _, svc := range slices.Backward(s.services) {
		s.out.printf("stopping %s", svc.name)
		errs = append(errs, svc.Stop())
	}
	return errors.Join(errs...)
}

// prepare finds our programs, and reports mistakes before anything starts.
func (s *devStack) prepare() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own directory: %w", err)
	}
	s.tramo = filepath.Dir(self)
	for _, name := range []string{"tramo", "tramo-worker"} {
		if _, err := os.Stat(filepath.Join(s.tramo, name)); err != nil {
			return fmt.Errorf("find %s beside tramo-dev: %w; build it with make build", name, err)
		}
	}
	if err := s.cfg.checkPorts(); err != nil {
		return err
	}
	if s.cfg.signsTokens() && s.cfg.JWTSecret == "" {
		made, err := secret(s.cfg.Dir, "jwt-secret")
		if err != nil {
			return err
		}
		s.cfg.JWTSecret = telemetry.Secret(made)
	}
	if s.cfg.WebhookKey == "" {
		made, err := secret(s.cfg.Dir, "webhook-key")
		if err != nil {
			return err
		}
		s.cfg.WebhookKey = telemetry.Secret(made)
	}
	if s.cfg.ReceiptKeyFile == "" {
		s.cfg.ReceiptKeyFile, err = receiptKey(s.cfg.Dir)
	}
	return err
}

// startParts starts Postgres, S3 and clamd concurrently, except those that the settings name.
func (s *devStack) startParts(ctx context.Context) error {
	// Each writes variables of its own, which are read after all have returned.
	g, ctx := errgroup.WithContext(ctx)
	for _, start := range []func(context.Context) error{s.startPostgres, s.startS3, s.startClamd} {
		g.Go(func() error { return start(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.extraEnv = append(s.extraEnv,
		"TRAMO_S3_ENDPOINT="+s.cfg.S3Endpoint, "TRAMO_S3_BUCKET="+s.cfg.S3Bucket, "TRAMO_CLAMD="+s.cfg.Clamd,
		"TRAMO_PUBLIC_URL="+s.cfg.PublicURL, "TRAMO_LOG_FORMAT="+s.cfg.LogFormat,
		"TRAMO_RECEIPT_KEY_FILE="+s.cfg.ReceiptKeyFile, "TRAMO_WEBHOOK_KEY="+string(s.cfg.WebhookKey))
	if os.Getenv("TRAMO_SERVE_CONTENT") == "" && s.ownS3 {
		s.extraEnv = append(s.extraEnv, "TRAMO_SERVE_CONTENT=true") // a phone reaches the server, and not S3 on this machine
	}
	if os.Getenv("TRAMO_WEBHOOK_ALLOW") == "" {
		// Receivers of webhooks are tried out on this machine.
		s.extraEnv = append(s.extraEnv, "TRAMO_WEBHOOK_ALLOW=127.0.0.0/8,::1/128", "TRAMO_WEBHOOK_ALLOW_HTTP=true")
	}
	if s.cfg.JWKSURL != "" {
		s.extraEnv = append(s.extraEnv, "TRAMO_JWKS_URL="+s.cfg.JWKSURL)
	} else {
		s.extraEnv = append(s.extraEnv, "TRAMO_JWT_SECRET="+string(s.cfg.JWTSecret))
	}
	return nil
}

func (s *devStack) startPostgres(ctx context.Context) error {
	if !s.cfg.ownDatabase() {
		return s.useDatabase()
	}
	return s.out.step("PostgreSQL", func() error {
		log, err := s.logFile("postgres.log")
		if err != nil {
			return err
		}
		pg, err := stack.StartPostgres(ctx, stack.PostgresConfig{Dir: filepath.Join(s.cfg.Dir, "postgres"), Durable: true, Log: log})
		if err != nil {
			return err
		}
		s.add("PostgreSQL", pg)
		if err := pg.CreateDatabase(ctx, database, ""); err != nil && !isDuplicateDatabase(err) {
			return err
		}
		s.databaseEnv(pg.URL("postgres", database), pg.URL("tramo_api", database), pg.URL("tramo_worker", database))
		return nil
	})
}

func isDuplicateDatabase(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "42P04" // duplicate_database
}

// useDatabase sets passwords for the roles on the server that the settings name.
func (s *devStack) useDatabase() error {
	admin, err := url.Parse(string(s.cfg.DatabaseURL))
	if err != nil {
		return errors.New("TRAMO_DATABASE_URL: not a URL") // the error would quote the password
	}
	as := func(role, variable string) (roleURL, env string, err error) {
		password := os.Getenv(variable)
		if password == "" {
			if password, err = secret(s.cfg.Dir, role+"-password"); err != nil {
				return "", "", err
			}
		}
		u := *admin
		u.User = url.UserPassword(role, password)
		return u.String(), variable + "=" + password, nil
	}
	api, apiEnv, err := as("tramo_api", "TRAMO_API_PASSWORD")
	if err != nil {
		return err
	}
	worker, workerEnv, err := as("tramo_worker", "TRAMO_WORKER_PASSWORD")
	if err != nil {
		return err
	}
	s.databaseEnv(admin.String(), api, worker)
	s.adminEnv = append(s.adminEnv, apiEnv, workerEnv)
	s.out.printf("using PostgreSQL at %s", admin.Host)
	return nil
}

func (s *devStack) databaseEnv(admin, api, worker string) {
	s.adminEnv = []string{"TRAMO_DATABASE_URL=" + admin}
	s.serveEnv = []string{"TRAMO_DATABASE_URL=" + api, "TRAMO_LISTEN=" + s.cfg.Listen, "TRAMO_OPS_LISTEN=" + s.cfg.OpsListen}
	s.workerEnv = []string{"TRAMO_DATABASE_URL=" + worker, "TRAMO_OPS_LISTEN=" + s.cfg.WorkerOpsListen}
}

func (s *devStack) startS3(ctx context.Context) error {
	if !s.cfg.ownS3() {
		s.out.printf("using S3 bucket %s", strings.TrimSpace(s.cfg.S3Bucket+" "+s.cfg.S3Endpoint))
		return nil
	}
	return s.out.step("S3", func() error {
		password, err := secret(s.cfg.Dir, "s3-secret")
		if err != nil {
			return err
		}
		addr, err := s.s3Addr()
		if err != nil {
			return err
		}
		s3, err := stack.StartS3(ctx, stack.S3Config{Dir: filepath.Join(s.cfg.Dir, "objects"), Addr: addr, Secret: password})
		if err != nil {
			return err
		}
		s.add("S3", s3)
		s.ownS3 = true
		s.cfg.S3Endpoint, s.cfg.S3Bucket = s3.Endpoint(), s3.Bucket()
		s.extraEnv = append(s.extraEnv, s3.Env()...)
		return nil
	})
}

// s3Addr returns the same address at every start, because presigned links contain it.
func (s *devStack) s3Addr() (string, error) {
	if s.cfg.S3Listen != "" {
		err := awaitFree(s.cfg.S3Listen)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s is in use by another program: stop that, or choose another address with TRAMO_DEV_S3_LISTEN", s.cfg.S3Listen)
		}
		return s.cfg.S3Listen, err
	}
	const name = "s3-listen"
	addr, err := remember(s.cfg.Dir, name, freeAddr)
	if err != nil || awaitFree(addr) == nil {
		return addr, err
	}
	s.out.printf("%s, where S3 listened last time, is in use by another program: earlier links no longer work", addr)
	if err := os.Remove(filepath.Join(s.cfg.Dir, name)); err != nil {
		return "", err
	}
	return remember(s.cfg.Dir, name, freeAddr)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port for S3: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func (s *devStack) startClamd(ctx context.Context) error {
	if !s.cfg.ownClamd() {
		s.out.printf("using clamd at %s", s.cfg.Clamd)
		return nil
	}
	return s.out.step("clamd", func() error {
		log, err := s.logFile("clamd.log")
		if err != nil {
			return err
		}
		clamd, err := stack.StartClamd(ctx, stack.ClamdConfig{Dir: filepath.Join(s.cfg.Dir, "clamd"), Log: log})
		if err != nil {
			return err
		}
		s.add("clamd", clamd)
		s.cfg.Clamd = clamd.Address()
		return nil
	})
}

// logFile opens the log of a service, for this run only. Nobody closes it, because the service writes until we end.
func (s *devStack) logFile(name string) (io.Writer, error) {
	return os.OpenFile(filepath.Join(s.cfg.Dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
}

// add keeps Postgres first, so that it is stopped last.
func (s *devStack) add(name string, p process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := len(s.services)
	if name == "PostgreSQL" {
		at = 0
	}
	s.services = slices.Insert(s.services, at, &service{name, p})
}
