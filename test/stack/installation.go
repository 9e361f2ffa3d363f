package stack

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Secret signs the tokens of an [Installation], and seals its webhooks' secrets.
const Secret = "a secret that only this test run knows of"

// An Installation is what an operator would run: one database, one bucket, servers and workers.
type Installation struct {
	Database string
	Bucket   string    // by default that of S3
	Endpoint string    // where the programs reach S3, such as a proxy before it; by default S3 itself
	Postgres *Postgres // these three are by default the ground's
	S3       *S3
	Programs *Binaries
	Clamd    *Clamd   // needed by workers
	Vars     []string // of all programs, besides what follows from the above
}

// Install completes in, makes its bucket if it is missing, and its database as a copy of a migrated one.
func (g *Ground) Install(ctx context.Context, in Installation) (_ *Installation, err error) {
	if in.Programs == nil {
		if in.Programs, err = g.Programs(ctx); err != nil {
			return nil, err
		}
	}
	if in.Postgres == nil {
		if in.Postgres, err = g.Postgres(ctx); err != nil {
			return nil, err
		}
	}
	if in.S3 == nil {
		if in.S3, err = g.S3(ctx); err != nil {
			return nil, err
		}
	}
	in.Endpoint = cmp.Or(in.Endpoint, in.S3.Endpoint())
	if in.Bucket == "" {
		in.Bucket = in.S3.Bucket()
	} else if _, err := in.S3.Client("").CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(in.Bucket)}); err != nil {
		return nil, fmt.Errorf("create bucket %s: %w", in.Bucket, err)
	}
	if err := in.migrated(ctx); err != nil {
		return nil, err
	}
	return &in, in.Postgres.CreateDatabase(ctx, in.Database, template)
}

// template is the migrated database of a Postgres, which installations copy.
const template = "migrated"

// migrated makes sure of the template.
func (in Installation) migrated(ctx context.Context) error {
	in.Postgres.migrating.Lock()
	defer in.Postgres.migrating.Unlock()
	if in.Postgres.migrated {
		return nil
	}
	if err := in.Postgres.CreateDatabase(ctx, template, "template0"); err != nil {
		return err
	}
	in.Database = template // of this copy
	_, err := in.Tramo(ctx, "migrate")
	in.Postgres.migrated = err == nil
	return err
}

// Env returns the environment of a program that connects to Postgres as role. Of a variable that is there twice the last
// one counts.
func (in *Installation) Env(role string, extra ...string) []string {
	env := CleanEnv(in.S3.Env()...)
	env = append(env,
		"TRAMO_DATABASE_URL="+in.Postgres.URL(role, in.Database),
		"TRAMO_S3_ENDPOINT="+in.Endpoint,
		"TRAMO_S3_BUCKET="+in.Bucket,
		"TRAMO_JWT_SECRET="+Secret,
		"TRAMO_LOG_FORMAT=text",
		"TRAMO_LISTEN=127.0.0.1:0", "TRAMO_OPS_LISTEN=127.0.0.1:0",
		// The clients of tests and benchmarks are few users at one address.
		"TRAMO_RATE_IP=0", "TRAMO_RATE_IP_TRANSFERS=0", "TRAMO_RATE_USER=0", "TRAMO_RATE_UPLOADS=0", "TRAMO_RATE_USER_TRANSFERS=0", "TRAMO_RATE_USER_THUMBNAILS=0",
		"TRAMO_TENANT_UPLOADS=0", "TRAMO_ADDRESS_CONNECTIONS=0",
	)
	if in.Clamd != nil {
		env = append(env, "TRAMO_CLAMD="+in.Clamd.Address())
	}
	return slices.Concat(env, in.Vars, extra)
}

// Tramo runs a command of tramo to its end, as an operator, and returns what it printed.
func (in *Installation) Tramo(ctx context.Context, args ...string) (string, error) {
	out, err := Run(ctx, ProcessConfig{Path: in.Programs.Path("tramo"), Args: args, Env: in.Env("postgres")})
	return strings.TrimSpace(out), err
}

// With returns a copy with more in every program's environment.
func (in Installation) With(vars ...string) *Installation {
	in.Vars = slices.Concat(in.Vars, vars)
	return &in
}

// Server describes a tramo serve with more in its environment.
func (in *Installation) Server(extra ...string) ProcessConfig {
	return ProcessConfig{Path: in.Programs.Path("tramo"), Args: []string{"serve"}, Env: in.Env("tramo_api", extra...)}
}

// Worker describes a tramo-worker with more in its environment.
func (in *Installation) Worker(extra ...string) ProcessConfig {
	return ProcessConfig{Path: in.Programs.Path("tramo-worker"), Env: in.Env("tramo_worker", extra...)}
}

// A Replica is a running server or worker.
type Replica struct {
	*Process
	URL string // of the API; "" for a worker
	Ops string // of the operations listener
}

// Serve starts a server and waits until it is ready.
func (in *Installation) Serve(ctx context.Context, extra ...string) (*Replica, error) {
	r, err := startReplica(in.Server(extra...))
	if err == nil {
		r.URL, err = r.WaitForLine(ctx, "msg=serving address=")
		r.URL = "http://" + r.URL
	}
	return r.ready(ctx, err)
}

// Work starts a worker and waits until it is ready.
func (in *Installation) Work(ctx context.Context, extra ...string) (*Replica, error) {
	r, err := startReplica(in.Worker(extra...))
	return r.ready(ctx, err)
}

func startReplica(c ProcessConfig) (*Replica, error) {
	p, err := Start(c)
	return &Replica{Process: p}, err
}

// ready waits until the replica is ready. Whatever goes wrong ends it.
func (r *Replica) ready(ctx context.Context, err error) (*Replica, error) {
	if err == nil {
		r.Ops, err = r.WaitForLine(ctx, `msg="serving operations" address=`)
		r.Ops = "http://" + r.Ops
	}
	if err == nil {
		err = r.WaitForURL(ctx, r.Ops+"/readyz")
	}
	if err != nil && r.Process != nil {
		r.Kill()
	}
	return r, err
}
