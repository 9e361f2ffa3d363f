package main

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// shared is where the tests count: versitygw allows one server a process.
var shared *stand

func TestMain(m *testing.M) {
	var err error
	if shared, err = newStand(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.ground.Main(m)
}
