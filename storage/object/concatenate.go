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
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
)

// pieceTime bounds how long one piece of a final upload may take.
const pieceTime = 2 * time.Minute

// assembliesAtOnce is how many final uploads a process assembles at a time.
const assembliesAtOnce = 4

// A concatenation makes the bytes of a final upload durable, piece by piece. Each piece moves the final upload's offset, so
// that the next attempt after a failure continues from there.
type concatenation struct {
	*Upload
	multipart multipart
	sources   []source
	hash      hash.Hash // of all bytes up to the offset
}

// A source is a complete partial upload.
type source struct {
	id    uuid.UUID
	key   string
	size  int64  // bytes
	state []byte // of its hash at its end
}

// errNoPartCopy says that the store does not copy parts.
var errNoPartCopy = errors.New("no parts are copied")

// errNoSource says that S3 no longer has a partial upload.
type errNoSource struct{ partial int }

func (e errNoSource) Error() string { return fmt.Sprintf("partial upload %d is gone", e.partial) }

// concatenate makes a final upload's bytes durable. It reads all of them once, also those that S3 copies itself, because the
// SHA-256 of the whole cannot be computed from those of its parts.
func (u *Upload) concatenate(ctx context.Context) error {
	// All bytes have arrived, so a client that no longer waits for the answer is no reason to stop.
	ctx = context.WithoutCancel(ctx)
	u.store.assemblies <- struct{}{}
	defer func() { <-u.store.assemblies }()
	err := u.addPieces(ctx, u.store.bucket.copiesParts())
	if errors.Is(err, errNoPartCopy) {
		u.store.log.WarnContext(ctx, "S3 copies no parts, and the bytes go through this server", slog.String("upload_id", u.row.ID.String()), slog.Any("err", err))
		err = u.addPieces(ctx, false)
	}
	return err
}

// addPieces makes durable what is not yet. Pieces that may be copied are, or else sent again.
func (u *Upload) addPieces(ctx context.Context, copied bool) error {
	c, err := u.newConcatenation(ctx)
	if err != nil {
		return err
	}
	pieces := c.plan(copied)
	if int(u.content.NextPart)-1+len(pieces) > MaxParts {
		if err := u.restart(ctx); err != nil {
			return err
		}
		if c, err = u.newConcatenation(ctx); err != nil {
			return err
		}
		pieces = c.plan(copied)
	}
	for _, p := range pieces {
		err := c.add(ctx, p)
		var gone errNoSource
		switch {
		case errors.As(err, &gone):
			return u.lost(c.sources[gone.partial].id)
		case errors.Is(err, ErrNoObject): // the multipart upload was aborted
			return u.lost()
		case err != nil:
			return fmt.Errorf("concatenate upload %s at %d: %w", u.row.ID, u.content.Received, err)
		}
	}
	return nil
}

// plan returns the pieces from the offset on.
func (c *concatenation) plan(copied bool) []piece {
	sizes := make([]int64, len(c.sources))
	for i, s := range c.sources {
		sizes[i] = s.size
	}
	if !copied {
		return planSent(sizes, c.content.Received, max(c.store.conf.PartSize, leastPiece(sizes)))
	}
	return plan(sizes, c.content.Received)
}

// restart gives up the multipart upload of a final upload that has no part numbers left: failures have used them up. All its
// bytes are those of its partial uploads, which are there.
func (u *Upload) restart(ctx context.Context) error {
	old := u.content
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) error { return storage.RestartParts(ctx, tx, u.row.ID, u.fence()) })
	if err != nil {
		return err
	}
	u.content = storage.Content{NextPart: 1}
	u.store.log.WarnContext(ctx, "part numbers are used up, the concatenation begins anew", slog.String("upload_id", u.row.ID.String()))
	if old.MultipartID == nil {
		return nil
	}
	if err := u.store.bucket.Abort(ctx, *old.ObjectKey, *old.MultipartID); err != nil { // the reconciler finds it
		u.store.log.WarnContext(ctx, "multipart upload not aborted", slog.String("upload_id", u.row.ID.String()), slog.Any("err", err))
	}
	return nil
}

func (u *Upload) newConcatenation(ctx context.Context) (*concatenation, error) {
	h, err := resumeHash(u.content.HashState)
	if err != nil {
		return nil, err
	}
	c := &concatenation{
		Upload: u, hash: h, sources: make([]source, len(u.row.Partials)),
		multipart: multipart{Upload: u, id: u.content.MultipartID, key: u.content.ObjectKey},
	}
	contents, err := u.partials(ctx)
	if err != nil {
		return nil, err
	}
	for i, id := range u.row.Partials {
		part, ok := contents[id]
		if !ok || !part.Stored {
			return nil, fmt.Errorf("partial upload %s has no object", id)
		}
		c.sources[i] = source{id: id, key: *part.ObjectKey, size: part.Received, state: part.HashState}
	}
	return c, nil
}

// partials says where the bytes of a final upload's partial ones are.
func (u *Upload) partials(ctx context.Context) (map[uuid.UUID]storage.Content, error) {
	return storage.InTenant(ctx, u.store.db, func(tx storage.Tx) (map[uuid.UUID]storage.Content, error) {
		return tx.Contents(ctx, u.row.Partials)
	})
}

// add makes a piece durable and moves the offset over it.
func (c *concatenation) add(ctx context.Context, p piece) (err error) {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	step := storage.Progress{From: c.content.Received, To: c.content.Received + p.size()}
	switch {
	case p.copied:
		err = c.copy(ctx, p.spans[0], &step)
	default:
		err = c.resend(ctx, p, &step)
	}
	if err != nil {
		return err
	}
	if step.HashState, err = c.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return fmt.Errorf("save hash: %w", err)
	}
	return c.advance(ctx, step, nil)
}

// copy lets S3 copy a span, and hashes it meanwhile.
func (c *concatenation) copy(ctx context.Context, s span, step *storage.Progress) error {
	from := c.sources[s.partial]
	whole := s.size() == from.size
	id, key, number, err := c.reserve(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(recovered(func() error {
		part, err := c.store.bucket.copyPart(ctx, key, id, number, from.key, s, whole)
		switch {
		case errors.Is(err, errNoCopySource):
			return errNoSource{s.partial}
		case errors.Is(err, ErrUnsupported):
			return fmt.Errorf("%w: %w", errNoPartCopy, err)
		}
		step.Part = &part
		return err
	}))
	g.Go(recovered(func() (err error) {
		if whole && step.From == 0 { // its hash is known, because no byte comes before it
			c.hash, err = resumeHash(from.state)
			return err
		}
		return c.read(ctx, s, c.hash)
	}))
	return g.Wait()
}

// resend reads the spans of a piece and stores them, as the whole object or as a part.
func (c *concatenation) resend(ctx context.Context, p piece, step *storage.Progress) error {
	bytes, err := c.gather(ctx, p)
	defer bytes.release()
	if err != nil {
		return err
	}
	if bytes.size == c.row.Size {
		step.Object = c.keys().Original(c.fence())
		return c.store.bucket.putRun(ctx, step.Object, &bytes)
	}
	id, key, number, err := c.reserve(ctx)
	if err != nil {
		return err
	}
	part, err := c.store.bucket.putConcatenatedPart(ctx, key, id, number, &bytes)
	step.Part = &part
	return err
}

func (c *concatenation) gather(ctx context.Context, p piece) (run, error) {
	sp := newSpool(c.store.buffers)
	for _, s := range p.spans {
		if err := c.read(ctx, s, io.MultiWriter(c.hash, spoolWriter{&sp})); err != nil {
			return sp.take(), err
		}
	}
	return sp.take(), nil
}

type spoolWriter struct{ *spool }

func (w spoolWriter) Write(p []byte) (int, error) { return len(p), w.appendCopy(p) }

// read copies the bytes of a span to w.
func (c *concatenation) read(ctx context.Context, s span, w io.Writer) error {
	body, err := c.store.bucket.getRange(ctx, c.sources[s.partial].key, s.start, s.end)
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

// reserve returns a number for the next part that was never used before.
func (c *concatenation) reserve(ctx context.Context) (id, key string, number int32, err error) {
	id, key, number, err = c.multipart.reserve(ctx)
	if err == nil {
		c.content.MultipartID, c.content.ObjectKey = &id, &key
	}
	return id, key, number, err
}

// RemovePartials deletes the objects of the partial uploads of a final upload, which has their bytes, and refunds what the
// partial uploads were charged.
func (u *Upload) RemovePartials(ctx context.Context) error {
	contents, err := u.partials(ctx)
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
	return u.store.db.InTenant(ctx, func(tx storage.Tx) error {
		_, err := storage.Release(ctx, tx, u.row.Partials)
		return err
	})
}
