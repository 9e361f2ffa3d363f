package stack_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// ground is what the tests of this package have in common: versitygw allows one server a process.
var ground stack.Ground

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) != "" {
		fmt.Fprintln(os.Stderr, parent())
		os.Exit(1)
	}
	ground.Main(m)
}
