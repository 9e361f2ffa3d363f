package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
)

// shared is where the tests count: versitygw allows one server a process.
var shared *stand

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if shared, err = newStand(context.Background()); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.stop()) }()
	return m.Run(), nil
}
