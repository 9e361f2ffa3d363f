package object_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

const mib = 1 << 20

// part is the size of a part in these tests, in bytes.
const part = object.MinPartSize

// A finisher records what has become of uploads, as package hooks does, with faults.
type finisher struct {
	db *storage.DB

	mu    sync.Mutex
	told  map[uuid.UUID]string // by upload; each call has the same
	first map[uuid.UUID]int    // how often an upload became uploaded
	fail  []failure            // used up one after the other
}

type failure int

const (
	failBefore failure = iota // nothing was recorded
	failAfter                 // it was recorded, but the answer was lost
)

var errInjected = errors.New("injected")

func (f *finisher) next(fs ...failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = append(f.fail, fs...)
}

func (f *finisher) finish(ctx context.Context, u *upload, key string, sum []byte) error {
	id := u.Row().ID
	f.mu.Lock()
	defer f.mu.Unlock()
	what := key + " " + hex.EncodeToString(sum)
	how := failure(-1)
	if len(f.fail) > 0 {
		how, f.fail = f.fail[0], f.fail[1:]
	}
	if how == failBefore {
		return errInjected
	}
	err := f.db.InTenant(ctx, func(tx storage.Tx) error {
		if err := errors.Join(u.Record(ctx, tx), storage.Flush(ctx, tx)); err != nil {
			return err // whose lease is lost tells nothing
		}
		if before, ok := f.told[id]; ok && before != what {
			return errors.New("told " + before + ", now " + what)
		}
		f.told[id] = what
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

// finished is how often the upload became uploaded.
func (f *finisher) finished(id uuid.UUID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first[id]
}

// A replica is a server without its protocols: the store, driven as package hooks drives it.
type replica struct {
	*object.Store
	site   *site
	bucket *object.Bucket
	leases *lease.Manager
	die    func()       // stops the heartbeat and gives nothing back
	lost   atomic.Int64 // uploads of which S3 had lost bytes
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
	bucket := openBucket(t, s.proxy.Endpoint(), stack.Get(t, ground.S3).Bucket())
	db := s.As(t, "tramo_api")
	r := &replica{site: s, bucket: bucket}
	var err error
	r.Store, err = object.NewStore(db, bucket, c, object.NewMetrics(prometheus.NewRegistry(), bucket), stack.Log(t, slog.LevelInfo))
	stack.Must(t, err)
	t.Cleanup(func() { // a flush that fails beside another may end after its write
		stack.Until(t, "all buffers are given back, and freed", func() bool { return r.Close() == nil })
	})
	r.leases = lease.NewManager(db, "test", ttl, stack.Log(t, slog.LevelInfo))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.leases.Run(ctx) }()
	r.die = sync.OnceFunc(func() {
		cancel()
		stack.Must(t, stack.Receive(t, "end of the heartbeat", ended))
	})
	t.Cleanup(r.die)
	return r
}

// An upload is one that is open.
type upload struct {
	*object.Upload
	replica *replica
}

var (
	errGone     = errors.New("upload has ended")
	errMismatch = errors.New("another offset")
)

// under opens an upload under its lease. letGo is called when another request wants it.
func (r *replica) under(ctx context.Context, id uuid.UUID, letGo func(), fn func(*upload) error) error {
	waiting, cancel := context.WithTimeout(ctx, stack.Patience)
	defer cancel()
	l, err := r.leases.Acquire(waiting, id, letGo)
	if err != nil {
		return err
	}
	u, err := r.open(ctx, id, l)
	if err == nil {
		err = fn(u)
	}
	return errors.Join(err, l.Release(ctx))
}

// open finishes an upload that has all its bytes.
func (r *replica) open(ctx context.Context, id uuid.UUID, l *lease.Lease) (*upload, error) {
	o, err := r.Open(ctx, id, l)
	if err != nil {
		return nil, err
	}
	u, row := &upload{o, r}, o.Row()
	switch {
	case row.Status == storage.Cancelled, row.Status == storage.Failed:
		return nil, errGone
	case u.unfinished():
		return u, u.finish(ctx)
	}
	return u, nil
}

func (u *upload) unfinished() bool {
	row := u.Row()
	return row.Status.Receiving() && row.UploadedAt == nil && !row.SizeDeferred &&
		(row.Received == row.Size || row.Kind == storage.Final)
}

func (u *upload) finish(ctx context.Context) error {
	key, sum, err := u.Assemble(ctx)
	if err != nil {
		return u.replica.endLost(ctx, err)
	}
	if err := u.replica.site.finish.finish(ctx, u, key, sum); err != nil {
		return errors.Join(err, u.Save(ctx))
	}
	if u.Row().Kind == storage.Final {
		return u.RemovePartials(ctx)
	}
	return nil
}

func (r *replica) endLost(ctx context.Context, err error) error {
	var lost *object.LostError
	if !errors.As(err, &lost) {
		return err
	}
	ended := r.site.API.InTenant(ctx, func(tx storage.Tx) error {
		for _, id := range lost.Uploads {
			u, err := tx.Upload(ctx, id)
			if err != nil {
				return err
			}
			if u.Kind != storage.Final {
				r.lost.Add(1)
			}
			if err := tx.Move(ctx, id, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonLost, Detail: "It is gone."})); err != nil {
				return err
			}
		}
		return nil
	})
	for _, id := range lost.Uploads {
		ended = errors.Join(ended, r.release(ctx, id))
	}
	return errors.Join(err, ended)
}

// A sent body ends without an error, as tusd's does.
type sent struct {
	io.Reader
	cut bool // before its client has ended
}

func (b *sent) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

func (b *sent) Ended() bool { return !b.cut }
func (b *sent) Cut() error  { return nil }

// patch is a PATCH request: it returns the offset that its client would be told, or an error.
func (r *replica) patch(ctx context.Context, id uuid.UUID, offset int64, body io.Reader) (now int64, err error) {
	return r.patchChecked(ctx, id, offset, &sent{Reader: body}, nil)
}

func (r *replica) patchChecked(ctx context.Context, id uuid.UUID, offset int64, body *sent, check *object.Check) (now int64, err error) {
	now = -1
	err = r.under(ctx, id, func() {}, func(u *upload) (err error) {
		row := u.Row()
		switch {
		case row.Received != offset:
			return errMismatch
		case row.Received == row.Size:
			now = row.Size
			return nil
		}
		now, err = u.write(ctx, body, check)
		return err
	})
	return now, err
}

// write tries to finish also after an error, as tusd does.
func (u *upload) write(ctx context.Context, body *sent, check *object.Check) (int64, error) {
	row := u.Row()
	body.Reader = io.LimitReader(body.Reader, row.Size-row.Received)
	n, err := u.Write(ctx, row.Received, body, check)
	err = u.replica.endLost(ctx, err)
	if row.Received+n == row.Size {
		if finish := u.finish(ctx); err == nil {
			err = finish
		}
	}
	return row.Received + n, err
}

// head is a HEAD request.
func (r *replica) head(ctx context.Context, id uuid.UUID) (offset int64, err error) {
	err = r.under(ctx, id, func() {}, func(u *upload) error {
		offset = u.Row().Received
		return nil
	})
	return offset, err
}

// delete marks an upload that takes no more bytes as deleted.
func (s *site) delete(ctx context.Context, id uuid.UUID) error {
	return s.API.InTenant(ctx, func(tx storage.Tx) error {
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

// terminate is a DELETE request.
func (r *replica) terminate(ctx context.Context, id uuid.UUID) error {
	return r.under(ctx, id, func() {}, func(u *upload) error {
		err := r.site.API.InTenant(ctx, func(tx storage.Tx) error { return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel}) })
		if errors.Is(err, storage.ErrWrongStatus) {
			return r.site.delete(ctx, id)
		}
		if err != nil {
			return err
		}
		_ = r.release(ctx, id) // what is left stays charged
		return nil
	})
}

// release removes what S3 has of an upload that has ended, and refunds it.
func (r *replica) release(ctx context.Context, id uuid.UUID) error {
	remaining, err := storage.InTenant(ctx, r.site.API, func(tx storage.Tx) ([]storage.Remain, error) {
		return storage.Remaining(ctx, tx, []uuid.UUID{id})
	})
	if err != nil {
		return err
	}
	for _, left := range remaining {
		keys := object.Keys{Tenant: r.site.tenant, Project: left.Project, Upload: id}
		if err := r.bucket.RemoveUnfinished(ctx, keys, left.ObjectKey, left.MultipartID); err != nil {
			return err
		}
	}
	return r.site.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := storage.Release(ctx, tx, []uuid.UUID{id})
		return err
	})
}

// wantOffset reports an upload that is not at the offset.
func (r *replica) wantOffset(t *testing.T, id uuid.UUID, want int64) {
	t.Helper()
	offset, err := r.head(r.site.ctx, id)
	stack.Must(t, err)
	stack.Want(t, offset, want, "offset")
}

// wantLost reports that S3 has lost bytes of more or fewer uploads.
func (r *replica) wantLost(t *testing.T, want int64) {
	t.Helper()
	stack.Want(t, r.lost.Load(), want, "number of lost offsets")
}

// wantFinished reports an upload that became uploaded more or less often.
func (s *site) wantFinished(t *testing.T, id uuid.UUID, want int) {
	t.Helper()
	stack.Want(t, s.finish.finished(id), want, "how often it became uploaded")
}

// send sends content[from:to], which must go well.
func (r *replica) send(t *testing.T, id uuid.UUID, content []byte, from, to int) {
	t.Helper()
	now, err := r.patch(r.site.ctx, id, int64(from), bytes.NewReader(content[from:to]))
	stack.Must(t, err)
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
	s.wantFinished(t, id, 1)
}
