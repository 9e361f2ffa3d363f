package stack_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// shared is what the tests of this package have in common: versitygw allows one server a process.
var shared struct {
	postgres *stack.Postgres
	s3       *stack.S3
	clamd    *stack.Clamd
}

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) != "" {
		fmt.Fprintln(os.Stderr, parent())
		os.Exit(1)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	if shared.postgres, err = stack.StartPostgres(ctx, stack.PostgresConfig{}); err != nil {
		return 0, err
	}
	defer shared.postgres.Stop() //nolint:errcheck // The tests have spoken.
	if shared.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return 0, err
	}
	defer shared.s3.Stop() //nolint:errcheck // The tests have spoken.
	if shared.clamd, err = stack.StartClamd(ctx, stack.ClamdConfig{}); err != nil {
		return 0, err
	}
	defer shared.clamd.Stop() //nolint:errcheck // The tests have spoken.
	return m.Run(), nil
}
