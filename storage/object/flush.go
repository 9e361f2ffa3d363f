package object

import (
	"context"
	"encoding"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// storeTimeout bounds how long received bytes may take to become durable. It applies also when their connection has ended.
const storeTimeout = 30 * time.Second

// tailRow is the most that one row of a tail has, in bytes.
const tailRow = 256 << 10

type kind int

const (
	asTail   kind = iota // rows in Postgres, after those of the tail before
	asPart               // the tail before and the bytes, as a part of the multipart upload
	asObject             // the tail before and the bytes, as the whole object: one PutObject
)

// A flush makes bytes durable and then moves the offset over them. Its commit is fenced, and comes after the commit of the
// flush before it.
type flush struct {
	*writer
	ctx      context.Context //nolint:containedctx // ends when this flush, or one before it, has failed
	fail     context.CancelCauseFunc
	kind     kind
	bytes    run
	from, to int64 // offsets
	tail     int64 // bytes before from that no part holds
	before   *flush
	number   int32         // of its part, once it has one
	numbered chan struct{} // closed when a part has its number
	hashed   chan struct{} // closed when state is there, or unhashed is
	state    []byte        // of the hash at to
	unhashed error
	done     chan struct{} // closed when the flush is over
	err      error
}

// run runs the flush. If it fails, it cancels the flushes after it, whose commits cannot succeed.
func (f *flush) run() {
	defer close(f.done)
	if f.err = recovered(func() error { return f.makeDurable(f.ctx) })(); f.err != nil {
		f.fail(f.err)
		f.report()
	}
}

// digest hashes the bytes, behind those of the flush before, while they are sent: neither their client nor S3 waits for it.
func (f *flush) digest() {
	defer close(f.hashed)
	f.unhashed = recovered(func() (err error) {
		if f.before != nil {
			if <-f.before.hashed; f.before.unhashed != nil {
				return f.before.unhashed
			}
		}
		err = f.bytes.pieces(func(p []byte) error {
			f.hash.Write(p)
			return nil
		})
		if err == nil {
			f.state, err = f.hash.(encoding.BinaryMarshaler).MarshalBinary()
		}
		return err
	})()
}

// report logs a failure of S3 or Postgres. The client is told only to try again.
func (f *flush) report() {
	for _, expected := range []error{storage.ErrFenced, ErrLost, ErrChecksum, errCut, context.Canceled} {
		if errors.Is(f.err, expected) {
			return
		}
	}
	if f.before.failed() {
		return
	}
	f.store.log.WarnContext(f.ctx, "bytes not stored", slog.String("upload_id", f.row.ID.String()),
		slog.Int64("offset", f.from), slog.Int64("size", f.to-f.from), slog.Any("err", f.err))
}

// failed reports whether a flush has ended and failed; false for nil.
func (f *flush) failed() bool {
	if f == nil {
		return false
	}
	select {
	case <-f.done:
		return f.err != nil
	default:
		return false
	}
}

// makeDurable makes the bytes durable: in S3, or as a tail while S3 is unavailable, so that clients do not send them again.
func (f *flush) makeDurable(ctx context.Context) error {
	free := sync.OnceFunc(func() {
		<-f.hashed
		f.bytes.release()
		<-f.flushing
	})
	defer free()
	step := storage.Progress{From: f.from, To: f.to, HadTail: f.tail > 0}
	if f.kind == asTail {
		return f.keepTail(ctx, step)
	}
	err := f.put(ctx, &step)
	if errors.Is(err, ErrUnavailable) && f.check == nil {
		return errors.Join(err, f.keepTail(ctx, step))
	}
	free()
	stored := err == nil || ctx.Err() != nil // or may be: S3 may have had all of it
	if err == nil {
		err = f.turn(ctx)
	}
	if err == nil {
		step.HashState, err = f.state, f.unhashed
	}
	if err != nil {
		if stored && f.number > 0 {
			f.wasted(f.number)
		}
		return err
	}
	if f.kind == asObject { // what follows from it is recorded with it
		f.pending = &step
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return f.advance(ctx, step, nil)
}

// keepTail appends the bytes to the tail.
func (f *flush) keepTail(ctx context.Context, step storage.Progress) error {
	if err := f.turn(ctx); err != nil {
		return err
	}
	if <-f.hashed; f.unhashed != nil {
		return f.unhashed
	}
	f.store.tails <- struct{}{}
	defer func() { <-f.store.tails }()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout) // from now: waiting for others does not count
	defer cancel()
	step.TailSize, step.Object, step.Part, step.HashState = f.tail+f.bytes.size, "", nil, f.state
	return f.advance(ctx, step, &f.bytes)
}

// turn waits until the offset may move: all flushes before are durable, and the body's checksum, if there is one, is
// verified.
func (f *flush) turn(ctx context.Context) error {
	if err := f.follow(); err != nil {
		return err
	}
	return f.check.wait(ctx)
}

// follow waits until all flushes before are durable.
func (f *flush) follow() error {
	if f.before == nil {
		return nil
	}
	<-f.before.done
	return f.before.err
}

// put stores the tail and the bytes in S3.
func (f *flush) put(ctx context.Context, step *storage.Progress) error {
	bytes := f.bytes
	if f.tail > 0 {
		// Not turn: that waits for the checksum, which comes after the last byte, and reading that byte may wait for this
		// flush.
		if err := f.follow(); err != nil {
			return err
		}
		tail, err := f.readTail(ctx)
		if err != nil {
			return err
		}
		defer tail.release()
		bytes = tail.then(bytes)
	}
	if f.kind == asPart {
		return f.putPart(ctx, &bytes, step)
	}
	if err := f.turn(ctx); err != nil { // a part can be left out of the object, but an object is the whole upload
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	step.Object = f.keys().Original(f.fence())
	return f.store.bucket.putRun(ctx, step.Object, &bytes)
}

func (f *flush) putPart(ctx context.Context, bytes *run, step *storage.Progress) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	id, key, number, err := f.reserve(ctx)
	if err != nil {
		return err
	}
	f.number = number
	part, err := f.store.bucket.putPart(ctx, key, id, number, bytes)
	if errors.Is(err, ErrNoObject) {
		return f.lost() // a lifecycle rule, for example, has aborted the multipart upload
	}
	step.Part = &part
	return err
}

// reserve returns a number for the part that was never used before. Numbers are in the order of the bytes, because S3 orders
// parts by them.
func (f *flush) reserve(ctx context.Context) (id, key string, number int32, err error) {
	if f.before != nil {
		select {
		case <-f.before.numbered:
		case <-f.before.done: // it needs no number, or has failed
		}
	}
	defer close(f.numbered)
	return f.multipart.reserve(ctx)
}

// readTail reads the tail from Postgres.
func (f *flush) readTail(ctx context.Context) (run, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s := newSpool(f.store.buffers)
	err := f.store.db.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Tail(ctx, f.row.ID, s.appendCopy)
	})
	tail := s.take()
	if err == nil && tail.size != f.tail {
		err = f.lost()
	}
	if err != nil {
		tail.release()
	}
	return tail, err
}

// A multipart is an upload's multipart upload in S3. It is created with its first part.
type multipart struct {
	*Upload
	mu      sync.Mutex
	id, key *string
}

// reserve creates the multipart upload if there is none, and returns the next part number. Numbers are few: none is used up
// while S3 is away.
func (m *multipart) reserve(ctx context.Context) (id, key string, number int32, err error) {
	if err := m.store.bucket.ready(ctx); err != nil {
		return "", "", 0, err
	}
	id, key, err = m.begin(ctx)
	if err != nil {
		return "", "", 0, err
	}
	number, err = storage.InTenant(ctx, m.store.db, func(tx storage.Tx) (int32, error) {
		return tx.ReservePart(ctx, m.row.ID, m.fence(), id, key)
	}, storage.PlannedOnce)
	return id, key, number, err
}

func (m *multipart) begin(ctx context.Context) (id, key string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == nil {
		key := m.keys().Original(m.fence())
		id, err := m.store.bucket.beginMultipart(ctx, key, m.row.Kind == storage.Final)
		if err != nil {
			return "", "", err
		}
		m.id, m.key = &id, &key
	}
	return *m.id, *m.key, nil
}

// advance commits a step, with the bytes that it appends to the tail, if any. The Upload changes only if the commit
// succeeds.
func (u *Upload) advance(ctx context.Context, step storage.Progress, tail *run) error {
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.Advance(ctx, u.row.ID, u.fence(), step); err != nil || tail == nil {
			return err
		}
		return appendTail(ctx, tx, u.row.ID, step.From, tail)
	}, storage.PlannedOnce)
	if err == nil {
		u.advanced(step)
	}
	return err
}

// advanced is a step that is committed.
func (u *Upload) advanced(step storage.Progress) {
	if u.row.Kind != storage.Final { // the bytes of its partial uploads were counted before
		u.store.metrics.acknowledged.WithLabelValues(u.tenant.String()).Add(float64(step.To - step.From))
	}
	u.content.Received, u.content.HashState, u.content.TailSize = step.To, step.HashState, step.TailSize
	u.row.TouchedAt = time.Now()
	if step.Object != "" {
		u.content.ObjectKey, u.content.Stored = &step.Object, true
	}
}

// appendTail writes bytes as rows of at most [tailRow] bytes, for which Postgres needs little memory.
func appendTail(ctx context.Context, tx storage.Tx, id uuid.UUID, start int64, bytes *run) error {
	row := make([]byte, 0, min(tailRow, bytes.size))
	write := func() error {
		err := tx.AppendTail(ctx, id, start, row)
		start += int64(len(row))
		row = row[:0]
		return err
	}
	err := bytes.pieces(func(p []byte) error {
		for len(p) > 0 {
			n := min(len(p), cap(row)-len(row))
			row, p = append(row, p[:n]...), p[n:]
			if len(row) < cap(row) {
				continue
			}
			if err := write(); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(row) > 0 {
		err = write()
	}
	return err
}
