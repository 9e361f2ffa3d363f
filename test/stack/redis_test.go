package stack_test

import (
	"context"
	"net"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A Redis that was killed comes back at the same address, and nothing of it is left behind when it is stopped.
func TestRedis(t *testing.T) {
	t.Parallel()
	r, err := stack.StartRedis(t.Context())
	stack.Must(t, err)
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
		if conn, err := net.Dial("tcp", r.Addr()); err == nil {
			conn.Close()
			t.Error("it still listens")
		}
	})
	url := r.URL()
	r.Kill()
	stack.Must(t, r.Restart(context.WithoutCancel(t.Context())))
	stack.Want(t, r.URL(), url, "address after the restart")
}
