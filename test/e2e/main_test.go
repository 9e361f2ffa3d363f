// Package e2e tests Tramo from outside: real binaries, a real Postgres, S3 server and clamd, real clients. It
// imports nothing of ours but test/stack.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// tramo is what an operator would run: one database, one bucket, one clamd, two replicas of the server, one worker. Tests
// share it and keep out of each other's way with tenants of their own.
var tramo struct {
	ground stack.Ground
	installation
	replicas []replica
	worker   replica
	contract *contract
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err = errors.Join(err, tramo.ground.Stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := start(ctx); err != nil {
		return 1, err
	}
	return m.Run(), tramo.contract.kept()
}

func start(ctx context.Context) (err error) {
	clamd, err := tramo.ground.Clamd(ctx)
	if err != nil {
		return err
	}
	if tramo.Installation, err = tramo.ground.Install(ctx, stack.Installation{Database: "tramo", Clamd: clamd, Vars: []string{
		// The receivers of webhooks are the tests'.
		"TRAMO_WEBHOOK_KEY=" + stack.Secret, "TRAMO_WEBHOOK_ALLOW=127.0.0.0/8", "TRAMO_WEBHOOK_ALLOW_HTTP=true",
	}}); err != nil {
		return err
	}
	if tramo.installation, err = tramo.withOperators(ctx); err != nil {
		return err
	}
	for range 2 {
		r, err := tramo.serve(ctx)
		if err != nil {
			return err
		}
		tramo.ground.AfterAll(r.Stop)
		tramo.replicas = append(tramo.replicas, r)
	}
	if tramo.worker, err = tramo.work(ctx); err != nil {
		return err
	}
	tramo.ground.AfterAll(tramo.worker.Stop)
	tramo.contract, err = sign(ctx, tramo.replicas[0].URL)
	return err
}

// A replica is a running server or worker, and what tests ask of it.
type replica struct{ *stack.Replica }

// An installation starts replicas, and makes tenants.
type installation struct{ *stack.Installation }

// serve starts a server and waits until it is ready.
func (in installation) serve(ctx context.Context, extra ...string) (replica, error) {
	r, err := in.Serve(ctx, extra...)
	return replica{r}, err
}

// work starts a worker and waits until it is ready.
func (in installation) work(ctx context.Context, extra ...string) (replica, error) {
	r, err := in.Work(ctx, extra...)
	return replica{r}, err
}

// serves starts a server that ends with the test.
func (in installation) serves(t *testing.T, extra ...string) replica {
	t.Helper()
	r, err := in.serve(stack.Context(t), extra...)
	return r.endsWith(t, err)
}

// works starts a worker that ends with the test.
func (in installation) works(t *testing.T, extra ...string) replica {
	t.Helper()
	r, err := in.work(stack.Context(t), extra...)
	return r.endsWith(t, err)
}

// endsWith checks that the replica has started, and kills it at the end of the test.
func (r replica) endsWith(t *testing.T, err error) replica {
	t.Helper()
	stack.Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s printed:\n%s", r.Ops, r.LastOutput())
		}
		r.Kill()
	})
	return r
}

// install makes an installation with a database of its own, and what else in names.
func install(t *testing.T, in stack.Installation) installation {
	t.Helper()
	in.Database, in.Clamd, in.Vars = newName(), tramo.Clamd, tramo.Vars
	made, err := tramo.ground.Install(stack.Context(t), in)
	stack.Must(t, err)
	return installation{made}
}

// withOperators makes the tenants operators and auditors, and lets them have admins.
func (in installation) withOperators(ctx context.Context) (installation, error) {
	one, err := in.Tramo(ctx, "tenant", "add", "operators")
	if err != nil {
		return in, err
	}
	two, err := in.Tramo(ctx, "tenant", "add", "auditors")
	return installation{in.With("TRAMO_ADMIN_TENANTS=" + one + "," + two)}, err
}

// ownPostgres starts a Postgres that the test may restart.
func ownPostgres(t *testing.T) *stack.Postgres {
	t.Helper()
	p, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{})
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, p.Stop()) })
	return p
}

// admin connects to the database as the superuser.
func (in installation) admin(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(stack.Context(t), in.Postgres.URL("postgres", in.Database))
	stack.Must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// newName returns a name that no database and no bucket has.
func newName() string { return fmt.Sprintf("t%d", time.Now().UnixNano()) }

// explain shows what the programs have printed last, if the test has failed.
func explain(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, r := range append(tramo.replicas, tramo.worker) {
		t.Logf("%s printed:\n%s", r.Ops, r.LastOutput())
	}
}
