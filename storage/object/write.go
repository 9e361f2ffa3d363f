package object

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage/lease"
)

// flushesInFlight is how many flushes of one upload may be in progress. A client that is faster than S3 waits.
const flushesInFlight = 3

// ErrStopping says that a body was cut off because the server stops.
var ErrStopping = errors.New("server is stopping")

// ErrRefused is the error of a body's reader that has seen that its upload is not wanted.
var ErrRefused = errors.New("body is refused")

// A Body is what one request brings. Its reader may end early, with or without an error: what came before counts, unless the
// error is [ErrRefused]. A reader that holds back what goes beyond the upload's length says so with [ErrBeyondLength].
type Body interface {
	io.Reader
	// Ended reports whether the reader has come to where the client says that the body ends.
	Ended() bool
	// Cut returns why the body ended before that, [ErrStopping] among others; nil if nothing cut it off.
	Cut() error
}

// Write makes durable what body brings from the offset on, and returns how many bytes that was, also when body or S3 fails
// in the middle. The last bytes of a small upload are in S3 then, and count once [Upload.Record] has recorded them. A body that check finds wrong is [ErrChecksum], and nothing of it counts; nil finds all right. One that goes
// beyond the upload's size is [ErrBeyondLength], and does not complete it: the file is not the one that was declared. One
// that goes beyond what an upload of unknown size may have is [ErrTooLong]. One whose reader refuses it is [ErrRefused]. A lease
// that is lost is [storage.ErrFenced].
//
// What has arrived is flushed when it fills a part, at checkpoints while the client is slow ([Config]), and at the body's
// end. Flushes run beside the reading and beside each other; their commits are in order, so that the offset has no holes.
func (u *Upload) Write(ctx context.Context, offset int64, body Body, check *Check) (int64, error) {
	if u.lease == nil || offset != u.content.Received {
		return 0, fmt.Errorf("write upload %s at %d: not under the lease that read offset %d", u.row.ID, offset, u.content.Received)
	}
	if u.store.bucket.Unavailable() {
		return 0, ErrUnavailable // before the client pays for bytes that could not be kept
	}
	w, err := u.newWriter(ctx, check)
	if err != nil {
		return 0, err
	}
	w.body = body
	err = w.close(w.readAll(reader{body, u.lease, u.store.metrics.received.WithLabelValues(u.tenant.String())}))
	w.tell(ctx, err)
	switch {
	case errors.Is(err, errCut):
		err = nil // whoever reads from the client knows what cut the body off
	case err == nil && u.lease.Wanted() && (u.row.SizeDeferred || u.received() < u.row.Size || !body.Ended()):
		err = ErrTakenOver
	}
	return u.received() - offset, err
}

// A reader reads a body until somebody else wants the upload. It counts what is read while it is read: a PATCH can last for
// hours.
type reader struct {
	io.Reader
	lease *lease.Lease
	bytes prometheus.Counter
}

func (r reader) Read(p []byte) (int, error) {
	if r.lease.Wanted() {
		return 0, io.EOF
	}
	n, err := r.Reader.Read(p)
	r.bytes.Add(float64(n))
	return n, err
}

// A writer makes the bytes of one request durable. The request's goroutine reads, a timer flushes the bytes of a slow client,
// and each flush is a goroutine.
type writer struct {
	*Upload
	multipart multipart
	body      Body                    // of the request; nil for a tail that is flushed without one
	check     *Check                  // of what the request brings; nil for none
	fail      context.CancelCauseFunc // ends all flushes
	flushing  chan struct{}           // holds one for each flush in progress

	mu       sync.Mutex      // protects all below
	ctx      context.Context //nolint:containedctx // of the last flush: outlives the request, ends at the first failure
	spool    spool
	progress progress
	hash     hash.Hash   // of all bytes that were flushed: see [flush.digest]
	at       int64       // offset of the spool's first byte
	tail     int64       // bytes before it that no part holds
	parts    int32       // part numbers used up
	since    time.Time   // when the spool's first byte arrived
	timer    *time.Timer // runs while the spool holds bytes
	closed   bool
	last     *flush
	waste    []int32        // numbers of parts that S3 may have and that will never count
	flushes  sync.WaitGroup // those that run
}

// newWriter makes a writer at the upload's offset.
func (u *Upload) newWriter(ctx context.Context, check *Check) (*writer, error) {
	h, err := resumeHash(u.content.HashState)
	if err != nil {
		return nil, err
	}
	w := &writer{
		Upload:    u,
		multipart: multipart{Upload: u, id: u.content.MultipartID, key: u.content.ObjectKey},
		check:     check,
		flushing:  make(chan struct{}, flushesInFlight),
		spool:     newSpool(u.store.buffers),
		hash:      h,
		at:        u.content.Received, tail: u.content.TailSize, parts: u.content.NextPart - 1,
		progress: progress{began: time.Now(), from: u.content.Received},
	}
	// Received bytes are made durable even if the client no longer waits for the answer.
	w.ctx, w.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	w.timer = time.AfterFunc(time.Hour, w.checkpoint)
	w.timer.Stop()
	return w, nil
}

// readAll reads src to its end, or until the upload has all its bytes. An error of src ends the reading; bytes before it
// count, and [Body.Cut] says why.
func (w *writer) readAll(src io.Reader) error {
	for {
		room, full := w.room()
		if full {
			return w.readEnd(src)
		}
		if room == nil {
			return nil // close returns why
		}
		n, cut := src.Read(room)
		if err := w.arrived(room, n); err != nil {
			return err
		}
		if errors.Is(cut, ErrRefused) {
			w.fail(cut) // what is not durable yet is never flushed
			return cut
		}
		if cut != nil {
			return nil
		}
	}
}

// room returns the buffer for the next read: nil after a failure; full reports that the upload has as many bytes as it may.
func (w *writer) room() (room []byte, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return nil, false
	}
	if w.full() {
		return nil, true
	}
	room = w.spool.room()
	return room[:min(int64(len(room)), w.limit()-w.at-w.spool.size())], false
}

// full reports whether the upload has as many bytes as it may.
func (w *writer) full() bool { return w.at+w.spool.size() >= w.limit() }

// limit is the upload's size, or the most that it may become while its size is not declared.
func (w *writer) limit() int64 {
	if w.row.SizeDeferred {
		return w.row.ChargedBytes
	}
	return w.row.Size
}

// readEnd reads on when the upload has as many bytes as it may, to refuse a body that has more, and to reach the checksum
// behind a body.
func (w *writer) readEnd(src io.Reader) error {
	var more [1]byte
	n, err := io.ReadFull(src, more[:])
	switch {
	case n == 0 && !errors.Is(err, ErrBeyondLength):
		return nil
	case w.row.SizeDeferred:
		return ErrTooLong
	}
	w.fail(ErrBeyondLength) // the last bytes are never flushed
	return ErrBeyondLength
}

// arrived records n bytes that were read into room, and flushes if due.
func (w *writer) arrived(room []byte, n int) error {
	if n == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.spool.size() == 0 {
		w.since = time.Now()
		if w.check == nil {
			w.timer.Reset(w.store.conf.CheckpointInterval)
		}
	}
	if err := w.spool.grew(n, len(room)); err != nil {
		w.fail(err) // the spool lacks bytes in its middle
		return err
	}
	w.check.write(room[:n])
	fresh := w.spool.size()
	switch {
	case w.full():
		return nil // close flushes, once it is known that the body ends here
	case w.tail+fresh >= w.store.conf.PartSize:
		return w.flush()
	case w.check != nil && w.spool.full && w.tail+fresh < MinPartSize:
		return ErrNoBuffer // no byte may be stored before all are verified, and no buffer is free
	case w.spool.full:
		return w.flushForRoom()
	case w.check == nil && fresh >= w.store.conf.CheckpointBytes && w.slow():
		return w.flush()
	}
	return nil
}

// slow reports whether, at the rate so far, the part will not be full, nor the upload complete, within a checkpoint's interval
// of the part's first byte. A faster client needs no checkpoint.
func (w *writer) slow() bool {
	fresh := w.spool.size()
	need := min(w.store.conf.PartSize-w.tail, w.limit()-w.at)
	rate := float64(time.Since(w.since)) / float64(fresh)
	return rate*float64(need) > float64(w.store.conf.CheckpointInterval)
}

// checkpoint is called by the timer a checkpoint's interval after the spool's first byte arrived. The upload's last bytes wait
// for the body's end: they would complete it.
func (w *writer) checkpoint() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed && w.spool.size() > 0 && !w.full() {
		if err := recovered(w.flush)(); err != nil {
			w.fail(err) // close returns it
		}
	}
}

// flushForRoom flushes because no block is free, and waits until one is.
func (w *writer) flushForRoom() error {
	if err := w.flush(); err != nil {
		return err
	}
	failed := w.ctx.Done()
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-w.store.buffers.wait():
	case <-failed:
	}
	return nil
}

// flush starts to make the spool's bytes durable: as the whole object, as a part if they are enough for one, or else as a
// tail. It waits while too many flushes are in progress.
func (w *writer) flush() error {
	w.timer.Stop()
	if w.ctx.Err() != nil {
		return nil // close returns why
	}
	select {
	case w.flushing <- struct{}{}:
	case <-w.ctx.Done():
		return nil // close returns why
	}
	f := &flush{
		writer: w, bytes: w.spool.take(), from: w.at, tail: w.tail,
		before: w.last, numbered: make(chan struct{}), hashed: make(chan struct{}), done: make(chan struct{}),
	}
	f.ctx, f.fail = context.WithCancelCause(w.ctx)
	f.to = f.from + f.bytes.size
	f.kind = w.kindOf(f)
	w.last, w.ctx, w.at = f, f.ctx, f.to
	switch f.kind {
	case asTail:
		w.tail += f.bytes.size
		w.progress.checkpoints++
	case asPart:
		w.parts++
		w.tail = 0
		w.progress.parts++
	}
	w.flushes.Go(f.digest)
	w.flushes.Go(f.run)
	return nil
}

func (w *writer) kindOf(f *flush) kind {
	size := f.tail + f.bytes.size
	whole := !w.row.SizeDeferred && f.to == w.row.Size
	switch {
	case whole && size == w.row.Size:
		return asObject
	case whole, size >= w.store.conf.PartSize:
		return asPart
	case size >= MinPartSize && w.parts < MaxParts/2: // the other half of the numbers is for full parts
		return asPart
	}
	return asTail
}

// close flushes the remaining bytes and waits until all flushes have ended. The Upload is then that of the last commit. err is
// why the reading ended early, if it did.
func (w *writer) close(err error) error {
	w.mu.Lock()
	w.closed = true
	w.timer.Stop()
	if wrong := w.check.verify(w.body != nil && w.body.Ended()); wrong != nil {
		w.fail(wrong) // no byte of the body counts
	}
	whole := !w.row.SizeDeferred && w.at+w.spool.size() == w.row.Size
	if w.spool.size() > 0 || whole && w.tail > 0 {
		err = errors.Join(err, w.flush())
	}
	w.spool.held.release()
	w.mu.Unlock()
	if w.last != nil {
		<-w.last.done
	}
	if cause := context.Cause(w.ctx); cause != nil {
		err = cause
		w.flushes.Wait()
		w.emptyWaste()
	}
	w.fail(nil)
	w.content.MultipartID, w.content.NextPart = w.multipart.id, w.parts+1
	if !w.content.Stored {
		w.content.ObjectKey = w.multipart.key
	}
	return err
}

// wasted records that a part of this number is never committed: its body was not what its client announced, or one before it
// failed.
func (w *writer) wasted(number int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waste = append(w.waste, number)
}

// emptyWaste replaces wasted parts by parts of one byte, for S3 has no request that deletes a part: a client whose checksums are
// wrong again and again would fill S3 with what nobody is charged for. No number is used again, so a late request replaces
// nothing that counts. What it cannot replace now goes with the multipart upload.
func (w *writer) emptyWaste() {
	w.mu.Lock()
	waste := w.waste
	w.mu.Unlock()
	if len(waste) == 0 || w.multipart.id == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), storeTimeout)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(flushesInFlight)
	for _, number := range waste {
		group.Go(recovered(func() error {
			_, err := w.store.bucket.putPart(ctx, *w.multipart.key, *w.multipart.id, number, runOf([]byte{0}))
			return err
		}))
	}
	if err := group.Wait(); err != nil {
		w.store.log.WarnContext(ctx, "parts that do not count stay in S3", slog.String("upload_id", w.row.ID.String()), slog.Any("err", err))
	}
}
