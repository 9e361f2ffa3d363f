package object

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
)

// pieceTime bounds how long one piece of a final upload may take.
const pieceTime = 2 * time.Minute

// joinsAtOnce is how many final uploads a process puts together at a time.
const joinsAtOnce = 4

// AsConcatableUpload implements [handler.ConcaterDataStore].
func (s *Store) AsConcatableUpload(u handler.Upload) handler.ConcatableUpload { return u.(*upload) }

// ConcatUploads implements [handler.ConcatableUpload]. Which partial uploads there are, and in what order, is in
// the final one's row; the argument says the same. tusd calls it without the upload's lease, which the caller
// must have taken, after it has opened the upload.
func (u *upload) ConcatUploads(ctx context.Context, _ []handler.Upload) error {
	now, err := u.store.open(ctx, u.row.ID) // somebody may have gone on with it before the lease was taken
	if err != nil {
		return err
	}
	*u = *now
	if !u.unfinished() {
		return nil
	}
	return u.FinishUpload(ctx)
}

// A joiner puts a final upload together, piece by piece. Each piece moves the final upload's offset as the bytes
// of a client would, so that whoever comes after a failure goes on from there.
type joiner struct {
	*upload
	multipart multipart
	sources   []source
	hash      hash.Hash // of all bytes up to the offset
}

// A source is a partial upload that is whole.
type source struct {
	id    uuid.UUID
	key   string
	size  int64  // bytes
	state []byte // of its hash at its end
}

// errNoSource says that S3 no longer has a partial upload.
type errNoSource struct{ partial int }

func (e errNoSource) Error() string { return fmt.Sprintf("partial upload %d is gone", e.partial) }

// join makes a final upload's bytes durable. All of them are read once, also those that S3 copies by itself: the
// SHA-256 of the whole cannot be computed from those of its parts.
func (u *upload) join(ctx context.Context) error {
	// The bytes are all here. That their client does not wait for the answer is no reason to stop.
	ctx = context.WithoutCancel(ctx)
	u.store.joins <- struct{}{}
	defer func() { <-u.store.joins }()
	j, err := u.newJoiner(ctx)
	if err != nil {
		return err
	}
	sizes := make([]int64, len(j.sources))
	for i, s := range j.sources {
		sizes[i] = s.size
	}
	for _, p := range plan(sizes, u.content.Received) {
		err := j.add(ctx, p)
		var gone errNoSource
		switch {
		case errors.As(err, &gone):
			return j.lostSource(ctx, j.sources[gone.partial].id)
		case errors.Is(err, ErrNoObject): // somebody has aborted the multipart upload
			return u.lost(ctx)
		case err != nil:
			return fmt.Errorf("concatenate upload %s at %d: %w", u.row.ID, u.content.Received, err)
		}
	}
	return nil
}

func (u *upload) newJoiner(ctx context.Context) (*joiner, error) {
	h, err := resumeHash(u.content.HashState)
	if err != nil {
		return nil, err
	}
	j := &joiner{
		upload: u, hash: h, sources: make([]source, len(u.row.Partials)),
		multipart: multipart{upload: u, id: u.content.MultipartID, key: u.content.ObjectKey},
	}
	err = u.store.db.InTenant(ctx, func(tx storage.Tx) error {
		contents, err := tx.Contents(ctx, u.row.Partials)
		if err != nil {
			return err
		}
		for i, id := range u.row.Partials {
			c, ok := contents[id]
			if !ok || !c.Stored {
				return fmt.Errorf("partial upload %s has no object", id)
			}
			j.sources[i] = source{id: id, key: *c.ObjectKey, size: c.Received, state: c.HashState}
		}
		return nil
	})
	return j, err
}

// add makes a piece durable and moves the offset over it.
func (j *joiner) add(ctx context.Context, p piece) (err error) {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	step := storage.Progress{From: j.content.Received, To: j.content.Received + p.size()}
	switch {
	case p.copied:
		err = j.copy(ctx, p.spans[0], &step)
	default:
		err = j.resend(ctx, p, &step)
	}
	if err != nil {
		return err
	}
	if step.HashState, err = j.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return fmt.Errorf("save hash: %w", err)
	}
	return j.advance(ctx, step, nil)
}

// copy has S3 copy a span, and reads it meanwhile.
func (j *joiner) copy(ctx context.Context, s span, step *storage.Progress) error {
	from := j.sources[s.partial]
	whole := s.size() == from.size
	id, key, number, err := j.reserve(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		part, err := j.store.bucket.copyPart(ctx, key, id, number, from.key, s, whole)
		if errors.Is(err, errNoCopySource) {
			return errNoSource{s.partial}
		}
		step.Part = &part
		return err
	})
	g.Go(func() (err error) {
		if whole && step.From == 0 { // its hash is known: nothing is before it
			j.hash, err = resumeHash(from.state)
			return err
		}
		return j.read(ctx, s, j.hash)
	})
	return g.Wait()
}

// resend reads the spans of a seam and stores them: as the object, if that is all of it, or as a part.
func (j *joiner) resend(ctx context.Context, p piece, step *storage.Progress) error {
	bytes, err := j.gather(ctx, p)
	defer bytes.release()
	if err != nil {
		return err
	}
	if bytes.size == j.row.Size {
		step.Object = j.keys.Original(j.fence)
		return j.store.bucket.putRun(ctx, step.Object, &bytes)
	}
	id, key, number, err := j.reserve(ctx)
	if err != nil {
		return err
	}
	part, err := j.store.bucket.putJoinedPart(ctx, key, id, number, &bytes)
	step.Part = &part
	return err
}

func (j *joiner) gather(ctx context.Context, p piece) (run, error) {
	sp := spool{from: j.store.buffers, held: run{from: j.store.buffers}}
	for _, s := range p.spans {
		if err := j.read(ctx, s, io.MultiWriter(j.hash, spoolWriter{&sp})); err != nil {
			return sp.take(), err
		}
	}
	return sp.take(), nil
}

type spoolWriter struct{ *spool }

func (w spoolWriter) Write(p []byte) (int, error) { return len(p), w.appendCopy(p) }

// read gives the bytes of a span to w.
func (j *joiner) read(ctx context.Context, s span, w io.Writer) error {
	body, err := j.store.bucket.getRange(ctx, j.sources[s.partial].key, s.start, s.end)
	if errors.Is(err, ErrNoObject) {
		return errNoSource{s.partial}
	}
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(w, body)
	if err == nil && n != s.size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read partial upload %d: %d of %d bytes: %w", s.partial, n, s.size(), err)
	}
	return nil
}

// reserve returns a number for the next part, which no part ever had.
func (j *joiner) reserve(ctx context.Context) (id, key string, number int32, err error) {
	id, key, number, err = j.multipart.reserve(ctx)
	if err == nil {
		j.content.MultipartID, j.content.ObjectKey = &id, &key
	}
	return id, key, number, err
}

// lostSource ends a final upload of which a part is gone, and that partial upload. The others can be used again.
func (j *joiner) lostSource(ctx context.Context, partial uuid.UUID) error {
	err := j.lost(ctx)
	if !errors.Is(err, ErrLost) {
		return err
	}
	if err := j.store.end.Lose(ctx, partial); err != nil && !errors.Is(err, storage.ErrWrongStatus) {
		return fmt.Errorf("end lost partial upload %s: %w", partial, err)
	}
	j.store.metrics.offsetsLost.Inc()
	return err
}

// removePartials deletes the objects of what a final upload has taken over. Their rows say so already; what
// stays behind belongs to nobody, so a failure is only logged.
func (u *upload) removePartials(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	err := u.deletePartials(ctx)
	if err != nil {
		u.store.log.WarnContext(ctx, "concatenated uploads left objects in S3",
			slog.String("upload_id", u.row.ID.String()), slog.Any("err", err))
	}
}

func (u *upload) deletePartials(ctx context.Context) error {
	var contents map[uuid.UUID]storage.Content
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		contents, err = tx.Contents(ctx, u.row.Partials)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range contents {
		if c.ObjectKey == nil {
			continue
		}
		if err := u.store.bucket.Delete(ctx, *c.ObjectKey); err != nil {
			return err
		}
	}
	return u.store.db.InTenant(ctx, func(tx storage.Tx) error { return tx.ForgetObjects(ctx, u.row.Partials) })
}
