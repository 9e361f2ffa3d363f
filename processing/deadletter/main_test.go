package deadletter_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A database is a test's own.
type database struct{ *storagetest.Database }

func newDatabase(t *testing.T) *database {
	t.Helper()
	return &database{hookstest.NewDatabase(t)}
}

func aCause(step string) deadletter.Cause {
	return deadletter.Cause{Job: 7, Kind: "process_upload", Step: step, Error: "inside", Attempts: 3}
}

// fail makes an upload that is safe and fails for good, in a tenant, and returns it with its letter.
func (d *database) fail(t *testing.T, ctx context.Context, n storage.NewUpload, c deadletter.Cause) (uuid.UUID, deadletter.Letter) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) error {
		if err := tx.CreateUpload(ctx, n); err != nil {
			return err
		}
		_, err := tx.MarkUploaded(ctx, n.ID, "key", make([]byte, 32))
		return err
	})
	d.write(t, ctx, n.ID, c)
	all := d.letters(t, ctx, deadletter.Page{})
	if len(all) == 0 || all[0].Upload != n.ID {
		t.Fatalf("there is no letter: %+v", all)
	}
	return n.ID, all[0]
}

func (d *database) write(t *testing.T, ctx context.Context, id uuid.UUID, c deadletter.Cause) {
	t.Helper()
	stack.Must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { return deadletter.Write(ctx, tx, id, c) }))
}

func (d *database) letters(t *testing.T, ctx context.Context, p deadletter.Page) (found []deadletter.Letter) {
	t.Helper()
	if p.Limit == 0 {
		p.Limit = 100
	}
	d.Must(t, ctx, func(tx storage.Tx) (err error) {
		found, err = deadletter.List(ctx, tx, p)
		return err
	})
	return found
}

// retry has the upload processed again.
func retry(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	if _, err := storage.LockFailedUpload(ctx, tx, id); err != nil {
		return err
	}
	retried, err := tx.Retry(ctx, []uuid.UUID{id})
	if err == nil && len(retried) != 1 {
		err = deadletter.ErrNothingToRetry
	}
	if err != nil {
		return err
	}
	return deadletter.MarkRetried(ctx, tx, id)
}

func as(ctx context.Context, role tenant.Role, projects ...string) context.Context {
	who, _ := tenant.From(ctx)
	who.Role, who.Projects = role, projects
	return tenant.With(ctx, who)
}
