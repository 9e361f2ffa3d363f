package processing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage/object"
)

// fetch downloads the upload's object once into a file without a name, has along read it meanwhile, and checks that it is the
// object that was received, byte for byte. A work that has the file needs no second download.
//
// along may have read enough before the end; then nothing is kept of the file.
func (p *Pipeline) fetch(ctx context.Context, w *work, along func(io.Reader) (enough bool, err error)) error {
	release, err := p.Space.take(ctx, w.upload.Size)
	if err != nil {
		return err
	}
	w.release = release // closed with the file, or when the work ends without one
	file, err := examine.Unnamed(p.TempDir)
	if err != nil {
		return err
	}
	w.file = file
	enough, err := p.read(ctx, w, file, along)
	if err != nil || enough {
		w.close()
	}
	return err
}

// read is fetch into any writer.
func (p *Pipeline) read(ctx context.Context, w *work, into io.Writer, along func(io.Reader) (enough bool, err error)) (enough bool, err error) {
	body, size, err := p.Bucket.Get(ctx, *w.upload.ObjectKey)
	switch {
	case errors.Is(err, object.ErrNoObject):
		return false, fmt.Errorf("object of upload %s: %w", w.upload.ID, err)
	case err != nil:
		return false, unavailable(err)
	}
	defer body.Close() // an error changes nothing about what was read
	if size != w.upload.Size {
		return false, fmt.Errorf("object of upload %s has %d bytes, not %d", w.upload.ID, size, w.upload.Size)
	}
	sum, limited := sha256.New(), &io.LimitedReader{R: body, N: size}
	enough, err = along(io.TeeReader(limited, io.MultiWriter(into, sum)))
	if err != nil || enough {
		return enough, err
	}
	if limited.N != 0 {
		return false, fmt.Errorf("upload %s: %d bytes were read of %d", w.upload.ID, size-limited.N, size)
	}
	if w.upload.SHA256 != nil && !bytes.Equal(sum.Sum(nil), w.upload.SHA256) {
		return false, fmt.Errorf("upload %s: the object's SHA-256 is not that of what was received", w.upload.ID)
	}
	return false, nil
}

// unavailable makes an error of S3 one that waits for it, unless waiting does not help.
func unavailable(err error) error {
	if errors.Is(err, object.ErrUnsupported) {
		return err
	}
	return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
}

// open returns the upload's bytes, and downloads them if an earlier attempt did the step that downloads.
func (p *Pipeline) open(ctx context.Context, w *work) (*os.File, error) {
	if w.file != nil {
		return w.file, nil
	}
	err := p.fetch(ctx, w, func(r io.Reader) (bool, error) {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return false, fmt.Errorf("%w: read object: %w", queue.ErrUnavailable, err)
		}
		return false, nil
	})
	return w.file, err
}

// close closes the file, which has no name, and gives back its disk space.
func (w *work) close() {
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	if w.release != nil {
		w.release()
		w.release = nil
	}
}
