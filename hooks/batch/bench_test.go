package batch_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
)

// BenchmarkEndOfUpload ends uploads as a worker does, with nothing else in the transaction: in no batch, and in a batch of so
// many uploads, by one worker and by several that wait for the batch's lock.
func BenchmarkEndOfUpload(b *testing.B) {
	for name, inBatch := range map[string]bool{"alone": false, "batch": true} {
		b.Run(name, func(b *testing.B) {
			d := hookstest.NewDatabase(b)
			ctx := d.NewTenant(b, 1<<40)
			ids := prepare(b, d.API, d.Worker, ctx, b.N, inBatch)
			b.ResetTimer()
			for _, id := range ids {
				complete(b, d.Worker, ctx, id)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			d := hookstest.NewDatabase(b)
			ctx := d.NewTenant(b, 1<<40)
			ids := prepare(b, d.API, d.Worker, ctx, b.N, inBatch)
			var next atomic.Int64
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					complete(b, d.Worker, ctx, ids[next.Add(1)-1])
				}
			})
		})
	}
}

func complete(b *testing.B, db *storage.DB, ctx context.Context, id uuid.UUID) {
	err := db.InTenant(ctx, func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) })
	if err != nil {
		b.Error(err)
	}
}

// prepare makes n uploads that a worker has begun with.
func prepare(b *testing.B, api, worker *storage.DB, ctx context.Context, n int, inBatch bool) (ids []uuid.UUID) {
	b.Helper()
	batch := storage.NewBatch{ID: uuid.Must(uuid.NewV7()), Project: "torre", Name: "x", UserID: "ana"}
	ns := make([]storage.NewUpload, n)
	for i := range ns {
		ns[i] = storagetest.NewUpload(1)
		ids = append(ids, ns[i].ID)
	}
	err := api.InTenant(ctx, func(tx storage.Tx) error {
		if _, _, err := tx.MakeBatch(ctx, batch); err != nil {
			return err
		}
		_, err := tx.CreateUploads(ctx, batch.ID, ns)
		return err
	})
	if err == nil {
		err = worker.InTenant(ctx, func(tx storage.Tx) error {
			_, err := tx.Exec(ctx, `update uploads set status = 'processing', batch_id = case when $1 then batch_id end`, inBatch)
			return err
		})
	}
	if err != nil {
		b.Fatal(err)
	}
	return ids
}
