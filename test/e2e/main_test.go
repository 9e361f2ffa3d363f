// Package e2e tests Tramo from outside: real binaries, a real Postgres, S3 server and clamd, real clients. It
// imports nothing of ours but test/stack.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// An installation is what an operator would run: one database, one bucket, one clamd, two replicas of the
// server, one worker. Tests share it and keep out of each other's way with tenants of their own.
type installation struct {
	postgres *stack.Postgres
	s3       *stack.S3
	clamd    *stack.Clamd
	bin      *stack.Binaries
	secret   string
	database string
	replicas []replica
	worker   replica
	contract *contract
}

// A replica is one running binary.
type replica struct {
	process *stack.Process
	url     string // for clients; "" for a worker
	ops     string // of the operations listener
}

var tramo installation

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	defer func() { err = errors.Join(err, tramo.stop()) }()
	if err := tramo.start(ctx); err != nil {
		return 1, err
	}
	return m.Run(), tramo.contract.kept()
}

func (in *installation) start(ctx context.Context) (err error) {
	if in.bin, err = stack.Build(ctx, "tramo", "tramo-worker", "tramo-dev"); err != nil {
		return err
	}
	if in.postgres, err = stack.StartPostgres(ctx, stack.PostgresConfig{}); err != nil {
		return err
	}
	if in.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return err
	}
	if in.clamd, err = stack.StartClamd(ctx, stack.ClamdConfig{}); err != nil {
		return err
	}
	in.database = "tramo"
	if err := in.postgres.CreateDatabase(ctx, in.database, "template0"); err != nil {
		return err
	}
	in.secret = "a secret that only this test run knows of"
	if _, err := in.run(ctx, "tramo", "migrate"); err != nil {
		return err
	}
	for range 2 {
		r, err := in.serve(ctx)
		if err != nil {
			return err
		}
		in.replicas = append(in.replicas, r)
	}
	if in.worker, err = in.work(ctx); err != nil {
		return err
	}
	in.contract, err = sign(ctx, in.replicas[0].url)
	return err
}

func (in *installation) stop() error {
	var errs []error
	for _, r := range append(in.replicas, in.worker) {
		if r.process != nil {
			errs = append(errs, r.process.Stop())
		}
	}
	if in.clamd != nil {
		errs = append(errs, in.clamd.Stop())
	}
	if in.s3 != nil {
		errs = append(errs, in.s3.Stop())
	}
	if in.postgres != nil {
		errs = append(errs, in.postgres.Stop())
	}
	if in.bin != nil {
		errs = append(errs, in.bin.Remove())
	}
	return errors.Join(errs...)
}

// env is a binary's environment; later variables win.
func (in *installation) env(role string, extra ...string) []string {
	env := stack.CleanEnv(in.s3.Env()...)
	env = append(env,
		"TRAMO_DATABASE_URL="+in.postgres.URL(role, in.database),
		"TRAMO_S3_ENDPOINT="+in.s3.Endpoint(),
		"TRAMO_S3_BUCKET="+in.s3.Bucket(),
		"TRAMO_CLAMD="+in.clamd.Address(),
		"TRAMO_JWT_SECRET="+in.secret,
		"TRAMO_LOG_FORMAT=text",
		// The receivers of webhooks are the tests'.
		"TRAMO_WEBHOOK_KEY="+in.secret, "TRAMO_WEBHOOK_ALLOW=127.0.0.0/8", "TRAMO_WEBHOOK_ALLOW_HTTP=true",
	)
	return slices.Concat(env, stack.NoRateLimits(), extra)
}

// run runs a command to its end with an operator's rights and returns what it printed.
func (in *installation) run(ctx context.Context, name string, args ...string) (string, error) {
	return stack.Run(ctx, stack.ProcessConfig{Path: in.bin.Path(name), Args: args, Env: in.env("postgres")})
}

// runWith runs tramo as run does, with more in its environment.
func (in *installation) runWith(ctx context.Context, env []string, args ...string) (string, error) {
	return stack.Run(ctx, stack.ProcessConfig{Path: in.bin.Path("tramo"), Args: args, Env: in.env("postgres", env...)})
}

// serve starts a replica of the server.
func (in *installation) serve(ctx context.Context, extra ...string) (replica, error) {
	env := in.env("tramo_api", append([]string{"TRAMO_LISTEN=127.0.0.1:0", "TRAMO_OPS_LISTEN=127.0.0.1:0"}, extra...)...)
	return started(ctx, stack.ProcessConfig{Path: in.bin.Path("tramo"), Args: []string{"serve"}, Env: env}, "msg=serving address=")
}

// work starts a worker.
func (in *installation) work(ctx context.Context, extra ...string) (replica, error) {
	env := in.env("tramo_worker", append([]string{"TRAMO_OPS_LISTEN=127.0.0.1:0"}, extra...)...)
	return started(ctx, stack.ProcessConfig{Path: in.bin.Path("tramo-worker"), Env: env}, "")
}

const opsLine = `msg="serving operations" address=`

// started starts a binary on ports of its own choosing, reads them from its log, and waits until it is ready.
// clients begins the log's line with the clients' address; "" for a binary that has none.
func started(ctx context.Context, c stack.ProcessConfig, clients string) (replica, error) {
	p, err := stack.Start(c)
	if err != nil {
		return replica{}, err
	}
	r := replica{process: p}
	for line, url := range map[string]*string{opsLine: &r.ops, clients: &r.url} {
		if line == "" {
			continue
		}
		if err := p.WaitForLog(ctx, line); err != nil {
			return r, err
		}
		_, rest, _ := strings.Cut(p.Output(), line)
		address, _, _ := strings.Cut(rest, "\n")
		*url = "http://" + address
	}
	return r, p.WaitForURL(ctx, r.ops+"/readyz")
}

// explain shows what the binaries said last, if the test has failed.
func (in *installation) explain(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, r := range append(in.replicas, in.worker) {
		out := r.process.Output()
		t.Logf("%s said:\n%s", r.ops, out[max(0, len(out)-4000):])
	}
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // loopback has no free port
	}
	defer l.Close() // nothing is lost with it
	return l.Addr().String()
}
