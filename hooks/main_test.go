package hooks_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A site is a [hookstest.Site] with what these tests do in it again and again.
type site struct{ *hookstest.Site }

func newSite(t *testing.T) *site {
	t.Helper()
	return &site{hookstest.New(t)}
}

// admit makes an upload.
func (s *site) admit(t *testing.T, ctx context.Context, r hooks.Request) uuid.UUID {
	t.Helper()
	a, err := s.Admission.Admit(ctx, r)
	stack.Must(t, err)
	return a.ID
}

// receive makes an upload whose ten bytes, all zero, are in S3.
func (s *site) receive(t *testing.T, ctx context.Context, r hooks.Request) (id uuid.UUID, key string, sum []byte) {
	t.Helper()
	id = s.admit(t, ctx, r)
	key, sum = s.Store(t, ctx, id, make([]byte, 10))
	s.Exec(t, `update contents set received = 10, stored = true, object_key = $2 where upload_id = $1`, id, key)
	return id, key, sum
}
