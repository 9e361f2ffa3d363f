package hooks_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A site has what a server decides with.
type site struct {
	*hookstest.Site
	bucket    *object.Bucket
	admission *hooks.Admission
	uploads   *hooks.Uploads
}

const maxSize = hookstest.MaxSize

func newSite(t *testing.T) *site {
	t.Helper()
	s := hookstest.New(t)
	return &site{s, s.Bucket, s.Admission, s.Uploads}
}

func as(ctx context.Context, id uuid.UUID, user string, role tenant.Role) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: user, Role: role})
}

func (s *site) upload(t *testing.T, ctx context.Context, id uuid.UUID) storage.Upload {
	t.Helper()
	return s.Upload(t, ctx, id)
}

func (s *site) room(t *testing.T, ctx context.Context) int64 {
	t.Helper()
	return s.Room(t, ctx)
}

func (s *site) count(t *testing.T, sql string, args ...any) int {
	t.Helper()
	return s.Count(t, sql, args...)
}

func (s *site) exec(t *testing.T, sql string) {
	t.Helper()
	_, err := s.Admin(t).Exec(t.Context(), sql)
	must(t, err)
}

var (
	must    = stack.Must
	wantErr = stack.WantErr
)
