package object

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
)

// keepTime bounds how long bytes that have arrived may take to become durable, also when their connection is
// gone, and how long a tail may take to be read back.
const keepTime = 30 * time.Second

// octetStream is the type under which S3 keeps uploads: the declared one is not to be believed, and a
// browser must never run what a link leads to.
const octetStream = "application/octet-stream"

// WriteChunk implements [handler.Upload]: it makes durable what src brings and returns how many bytes that
// was, also when src or S3 fails in the middle. tusd ends src early and without an error when the client's
// connection drops.
//
// What fits one part is one PutObject. Anything larger goes part by part; bytes that end inside a part
// become a tail, which the next request reads back and goes on from.
func (u *upload) WriteChunk(ctx context.Context, offset int64, src io.Reader) (int64, error) {
	if u.fence == 0 {
		u.fence = fenceIn(ctx) // a creation that brings content takes its lease after it was opened
	}
	if u.fence == 0 || offset != u.content.Received {
		return 0, fmt.Errorf("write upload %s at %d: not under the lease that read offset %d", u.row.ID, offset, u.content.Received)
	}
	w, err := u.newWriter()
	if err != nil {
		return 0, err
	}
	defer w.close()
	for {
		ended, err := w.fill(ctx, src)
		if err != nil {
			return u.content.Received - offset, err
		}
		// Bytes that have arrived are kept even if nobody waits for the answer.
		if err := w.flush(context.WithoutCancel(ctx), ended); err != nil {
			return u.content.Received - offset, err
		}
		if ended || u.content.Received == u.row.Size {
			return u.content.Received - offset, nil
		}
	}
}

// A writer carries bytes from a request to S3. Its buffer begins with the upload's tail, if there is one,
// and grows with what arrives, to one part at most.
type writer struct {
	*upload
	buf  *bytes.Buffer
	tail int64 // bytes at the front of buf that are durable already, as the tail object
	hash hash.Hash
}

func (u *upload) newWriter() (*writer, error) {
	h, err := resumeHash(u.content.HashState)
	if err != nil {
		return nil, err
	}
	buf, _ := u.store.buffers.Get().(*bytes.Buffer)
	if buf == nil {
		buf = new(bytes.Buffer)
	}
	return &writer{upload: u, buf: buf, hash: h}, nil
}

func (w *writer) close() {
	w.buf.Reset()
	w.store.buffers.Put(w.buf)
}

// fresh is how many bytes of the buffer are not durable yet.
func (w *writer) fresh() int64 { return int64(w.buf.Len()) - w.tail }

// fill reads src until the buffer holds a part or src ends. A tail is read back first.
func (w *writer) fill(ctx context.Context, src io.Reader) (ended bool, err error) {
	if w.content.TailKey != nil && w.buf.Len() == 0 {
		if err := w.readTail(ctx); err != nil {
			return false, err
		}
	}
	// A tail fills more than a part if parts were larger when it was kept.
	full := max(w.store.size, w.tail+1)
	room := min(full-int64(w.buf.Len()), w.row.Size-w.content.Received)
	_, err = io.CopyN(w.buf, body{src, slotIn(ctx), w.store.metrics.received}, room)
	// A reader that fails has been cut off. tusd remembers why and answers with it; what came before
	// counts.
	return err != nil, nil
}

// A body is a request's, which ends when somebody else wants the upload. It counts what is read while it is
// read: a PATCH can last for hours.
type body struct {
	io.Reader
	slot  *leaseSlot
	bytes prometheus.Counter
}

func (b body) Read(p []byte) (int, error) {
	if b.slot.letGo.Load() {
		return 0, io.EOF
	}
	n, err := b.Reader.Read(p)
	b.bytes.Add(float64(n))
	return n, err
}

// readTail brings the tail back. It ends with the request, or after a time, so that an S3 that does not answer
// cannot make the lease be kept for ever: nothing has been read from the client yet.
func (w *writer) readTail(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	kept, _, err := w.store.bucket.Get(ctx, *w.content.TailKey)
	if err == nil {
		defer kept.Close() // read to its end below
		w.tail, err = w.buf.ReadFrom(io.LimitReader(kept, w.content.TailSize+1))
	}
	switch {
	case errors.Is(err, ErrNoObject), err == nil && w.tail != w.content.TailSize:
		return w.lost(ctx)
	case err != nil:
		return fmt.Errorf("read tail of upload %s: %w", w.row.ID, err)
	}
	return nil
}

// flush makes the buffer durable and moves the offset over it.
func (w *writer) flush(ctx context.Context, ended bool) error {
	if w.fresh() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	whole := w.content.Received+w.fresh() == w.row.Size
	switch {
	case whole && w.content.MultipartID == nil:
		return w.putWhole(ctx)
	case whole || int64(w.buf.Len()) >= w.store.size:
		return w.putPart(ctx)
	case ended:
		return w.putTail(ctx)
	}
	return nil
}

// putWhole stores an upload that fits one part with one request.
func (w *writer) putWhole(ctx context.Context) error {
	key := w.keys.Original(w.fence)
	if err := w.store.bucket.Put(ctx, key, octetStream, bytes.NewReader(w.buf.Bytes()), int64(w.buf.Len())); err != nil {
		return err
	}
	return w.commit(ctx, nil, func(to *storage.Content) {
		to.ObjectKey, to.Stored, to.TailKey, to.TailSize = &key, true, nil, 0
	})
}

// putPart stores the buffer as the next part, and begins the multipart upload if there is none.
func (w *writer) putPart(ctx context.Context) error {
	number, err := w.reservePart(ctx)
	if err != nil {
		return err
	}
	b := w.store.bucket
	size := int64(w.buf.Len())
	out, err := b.s3.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &b.name, Key: w.content.ObjectKey, UploadId: w.content.MultipartID, PartNumber: &number,
		Body: bytes.NewReader(w.buf.Bytes()), ContentLength: &size,
	})
	if isAbsent(err) {
		return w.lost(ctx) // somebody, such as a lifecycle rule, has aborted the multipart upload
	}
	if err != nil {
		return fmt.Errorf("upload part %d: %w", number, err)
	}
	part := storage.Part{Number: number, Size: size, ETag: aws.ToString(out.ETag)}
	return w.commit(ctx, &part, func(to *storage.Content) { to.TailKey, to.TailSize = nil, 0 })
}

func (w *writer) reservePart(ctx context.Context) (number int32, err error) {
	id, key := w.content.MultipartID, w.content.ObjectKey
	if id == nil {
		key = aws.String(w.keys.Original(w.fence))
		b := w.store.bucket
		out, err := b.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: &b.name, Key: key, ContentType: aws.String(octetStream),
		})
		if err != nil {
			return 0, fmt.Errorf("create multipart upload: %w", err)
		}
		id = out.UploadId
	}
	err = w.store.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		number, err = tx.ReservePart(ctx, w.row.ID, w.fence, *id, *key)
		return err
	})
	if errors.Is(err, storage.ErrFenced) {
		return 0, handler.ErrFileLocked
	}
	if err != nil {
		return 0, err
	}
	w.content.MultipartID, w.content.ObjectKey = id, key
	return number, nil
}

// putTail stores a buffer that fills no part. The new tail holds the old one's bytes too.
func (w *writer) putTail(ctx context.Context) error {
	key := w.keys.Tail(w.fence, w.content.Received)
	size := int64(w.buf.Len())
	err := w.store.bucket.Put(ctx, key, octetStream, bytes.NewReader(w.buf.Bytes()), size)
	if err != nil {
		return err
	}
	return w.commit(ctx, nil, func(to *storage.Content) { to.TailKey, to.TailSize = &key, size })
}

// commit moves the offset over the buffer's fresh bytes, which are durable now, and only then lets the old
// tail go.
func (w *writer) commit(ctx context.Context, part *storage.Part, change func(*storage.Content)) error {
	w.hash.Write(w.buf.Bytes()[w.tail:])
	state, err := w.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return fmt.Errorf("save hash: %w", err)
	}
	old := w.content.TailKey
	err = w.save(ctx, func(to *storage.Content) {
		to.Received += w.fresh()
		to.HashState = state
		change(to)
	}, part)
	if err != nil {
		return err
	}
	w.buf.Reset()
	w.tail = 0
	if old != nil {
		if err := w.store.bucket.Delete(ctx, *old); err != nil {
			w.store.log.WarnContext(ctx, "old tail not deleted", slog.String("upload_id", w.row.ID.String()), slog.Any("err", err))
		}
	}
	return nil
}

// resumeHash continues the SHA-256 that was saved as state; nil begins one.
func resumeHash(state []byte) (hash.Hash, error) {
	h := sha256.New()
	if state == nil {
		return h, nil
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("resume hash: %w", err)
	}
	return h, nil
}
