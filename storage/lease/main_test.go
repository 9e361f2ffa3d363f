package lease_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/storagetest"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// newUpload makes a database with an upload of 100 bytes in it, and a context that acts for its tenant.
func newUpload(t *testing.T) (d *storagetest.Database, ctx context.Context, id uuid.UUID) {
	t.Helper()
	d = ground.NewDatabase(t)
	ctx = d.NewTenant(t, 1<<30)
	return d, ctx, d.Create(t, ctx, 100)
}
