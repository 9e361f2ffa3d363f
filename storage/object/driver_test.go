package object_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

const mib = 1 << 20

// part is the size of a part in these tests, in bytes.
const part = object.MinPartSize

// A finisher is what package hooks is to the store, with faults.
type finisher struct {
	db *storage.DB

	mu    sync.Mutex
	told  map[uuid.UUID]string // what it was told of an upload: always the same
	first map[uuid.UUID]int    // how often an upload became uploaded
	fail  []failure            // used up one after the other
}

type failure int

const (
	failBefore failure = iota // nothing was recorded
	failAfter                 // it was recorded, but the answer got lost
)

var errInjected = errors.New("injected")

func (f *finisher) next(fs ...failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = append(f.fail, fs...)
}

func (f *finisher) Finish(ctx context.Context, id uuid.UUID, key string, sum []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	what := key + " " + hex.EncodeToString(sum)
	if before, ok := f.told[id]; ok && before != what {
		return errors.New("told " + before + ", now " + what)
	}
	f.told[id] = what
	how := failure(-1)
	if len(f.fail) > 0 {
		how, f.fail = f.fail[0], f.fail[1:]
	}
	if how == failBefore {
		return errInjected
	}
	err := f.db.InTenant(ctx, func(tx storage.Tx) error {
		first, err := tx.MarkUploaded(ctx, id, key, sum)
		if first {
			f.first[id]++
		}
		return err
	})
	if how == failAfter && err == nil {
		err = errInjected
	}
	return err
}

func (f *finisher) Lose(ctx context.Context, id uuid.UUID) error {
	return f.db.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Reject(ctx, id, storage.Failure{Reason: storage.ReasonLost, Detail: "It is gone."})
	})
}

func (f *finisher) Delete(ctx context.Context, id uuid.UUID) error {
	return f.db.InTenant(ctx, func(tx storage.Tx) error {
		return tx.AmongDeleted(ctx, func() error {
			tag, err := tx.Exec(ctx, `
				update uploads set deleted_at = now(), purge_at = now() + interval '1 hour'
				where tenant_id = $1 and id = $2 and status = 'uploaded' and deleted_at is null`, tx.Tenant, id)
			if err == nil && tag.RowsAffected() == 0 {
				err = storage.ErrWrongStatus
			}
			return err
		})
	})
}

func (f *finisher) Cancel(ctx context.Context, id uuid.UUID) error {
	return f.db.InTenant(ctx, func(tx storage.Tx) error { return tx.Cancel(ctx, id) })
}

// finished is how often the upload became uploaded.
func (f *finisher) finished(id uuid.UUID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first[id]
}

// A replica is a server without its HTTP: the store, driven as tusd drives it.
type replica struct {
	*object.Store
	site     *site
	locker   object.Locker
	registry *prometheus.Registry
	die      func() // stops the heartbeat and gives nothing back
}

func (s *site) replica(t *testing.T) *replica {
	t.Helper()
	return s.replicaWith(t, config(part), time.Minute)
}

// config is the default but for the size of a part, for memory that hardly ever suffices, and for checkpoints,
// which come with time: a test that wants one says when.
func config(partSize int64) object.Config {
	c := object.DefaultConfig()
	c.PartSize, c.CheckpointInterval = partSize, time.Hour
	c.Buffers.Memory = 2 * mib
	return c
}

func (s *site) replicaWith(t *testing.T, c object.Config, ttl time.Duration) *replica {
	t.Helper()
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: s.proxy.url, Name: shared.s3.Bucket()})
	must(t, err)
	db := s.As(t, "tramo_api")
	r := &replica{site: s, registry: prometheus.NewRegistry()}
	r.Store, err = object.NewStore(db, bucket, s.finish, s.finish, c, object.NewMetrics(r.registry, bucket), logTo(t))
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	leases := lease.NewManager(db, "test", ttl, logTo(t))
	r.locker = object.Locker{Leases: leases, Log: logTo(t)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- leases.Run(ctx) }()
	r.die = sync.OnceFunc(func() {
		cancel()
		must(t, await(t, "end of the heartbeat", ended))
	})
	t.Cleanup(r.die)
	return r
}

// offsetsLost is the metric that must stay 0.
func (r *replica) offsetsLost(t *testing.T) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() == "tramo_upload_offsets_lost_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("there is no metric for lost offsets")
	return 0
}

// under runs fn as one request of tusd's under the upload's lease. letGo is called when another wants it.
func (r *replica) under(ctx context.Context, id uuid.UUID, letGo func(), fn func(context.Context) error) error {
	ctx = object.WithLeaseSlot(ctx)
	lock, err := r.locker.NewLock(id.String())
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := lock.Lock(waiting, letGo); err != nil {
		return err
	}
	return errors.Join(fn(ctx), lock.Unlock())
}

// patch is a PATCH request: it returns the offset that its client would hear, or an error.
func (r *replica) patch(ctx context.Context, id uuid.UUID, offset int64, body io.Reader) (now int64, err error) {
	var gone atomic.Bool
	now = -1
	err = r.under(ctx, id, func() { gone.Store(true) }, func(ctx context.Context) error {
		u, err := r.GetUpload(ctx, id.String())
		if err != nil {
			return err
		}
		info, err := u.GetInfo(ctx)
		if err != nil {
			return err
		}
		switch {
		case info.Offset != offset:
			return handler.ErrMismatchOffset
		case info.Offset == info.Size:
			now = info.Size
			return nil
		}
		now, err = r.write(ctx, u, info, &tusBody{body, &gone})
		return err
	})
	return now, err
}

// write is what tusd does with a body: it tries to finish also after an error.
func (r *replica) write(ctx context.Context, u handler.Upload, info handler.FileInfo, body io.Reader) (int64, error) {
	n, err := u.WriteChunk(ctx, info.Offset, io.LimitReader(body, info.Size-info.Offset))
	if info.Offset+n == info.Size {
		if finish := u.FinishUpload(ctx); err == nil {
			err = finish
		}
	}
	return info.Offset + n, err
}

// A tusBody ends without an error when its request was asked to let go, as tusd's does.
type tusBody struct {
	io.Reader
	gone *atomic.Bool
}

func (b *tusBody) Read(p []byte) (int, error) {
	if b.gone.Load() {
		return 0, io.EOF
	}
	n, err := b.Reader.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// head is a HEAD request.
func (r *replica) head(ctx context.Context, id uuid.UUID) (offset int64, err error) {
	err = r.under(ctx, id, func() {}, func(ctx context.Context) error {
		u, err := r.GetUpload(ctx, id.String())
		if err != nil {
			return err
		}
		info, err := u.GetInfo(ctx)
		offset = info.Offset
		return err
	})
	return offset, err
}

// terminate is a DELETE request.
func (r *replica) terminate(ctx context.Context, id uuid.UUID) error {
	return r.under(ctx, id, func() {}, func(ctx context.Context) error {
		u, err := r.GetUpload(ctx, id.String())
		if err != nil {
			return err
		}
		return r.AsTerminatableUpload(u).Terminate(ctx)
	})
}

// send sends content[from:to], which must go well.
func (r *replica) send(t *testing.T, id uuid.UUID, content []byte, from, to int) {
	t.Helper()
	now, err := r.patch(r.site.ctx, id, int64(from), bytes.NewReader(content[from:to]))
	must(t, err)
	if now != int64(to) {
		t.Fatalf("the offset is %d, want %d", now, to)
	}
}

// checkComplete makes sure that an upload is what was sent, and became uploaded once.
func (s *site) checkComplete(t *testing.T, id uuid.UUID, content []byte) {
	t.Helper()
	u, c, _ := s.rows(t, id)
	if u.Status != storage.Uploaded || !c.Stored || c.Received != int64(len(content)) {
		t.Fatalf("the upload is %s, stored %t, with %d bytes of %d", u.Status, c.Stored, c.Received, len(content))
	}
	if *u.ObjectKey != *c.ObjectKey || hex.EncodeToString(u.SHA256) != sumOf(content) {
		t.Errorf("key %s and %s, SHA-256 %x, want %s", *u.ObjectKey, *c.ObjectKey, u.SHA256, sumOf(content))
	}
	s.checkDurable(t, id, content)
	if n := s.finish.finished(id); n != 1 {
		t.Errorf("it became uploaded %d times", n)
	}
}
