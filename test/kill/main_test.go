// Package kill ends workers, their children, clamd, S3 and Postgres with kill -9 at each step of an upload's processing. Each
// upload comes to one end, with one set of pictures. It imports nothing of ours but test/stack.
package kill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// shared is what all yards have in common; versitygw allows one server a process.
var shared struct {
	s3       *stack.S3
	bin      *stack.Binaries
	postgres *stack.Postgres // of the yards that do not kill theirs
}

// template is the migrated database that each yard copies.
const template = "migrated"

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
	defer func() { err = errors.Join(err, leave()) }()
	if shared.bin, err = stack.Build(ctx, "tramo", "tramo-worker"); err != nil {
		return 1, err
	}
	if shared.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return 1, err
	}
	if shared.postgres, err = newPostgres(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func leave() (err error) {
	if shared.postgres != nil {
		err = shared.postgres.Stop()
	}
	if shared.s3 != nil {
		err = errors.Join(err, shared.s3.Stop())
	}
	if shared.bin != nil {
		err = errors.Join(err, shared.bin.Remove())
	}
	return err
}

func newPostgres(ctx context.Context) (*stack.Postgres, error) {
	postgres, err := stack.StartPostgres(ctx, stack.PostgresConfig{})
	if err != nil {
		return nil, err
	}
	if err := postgres.CreateDatabase(ctx, template, "template0"); err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	_, err = stack.Run(ctx, stack.ProcessConfig{
		Path: shared.bin.Path("tramo"), Args: []string{"migrate"},
		Env: stack.CleanEnv("TRAMO_DATABASE_URL=" + postgres.URL("postgres", template)),
	})
	if err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	return postgres, nil
}
