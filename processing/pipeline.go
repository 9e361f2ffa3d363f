// Package processing is what happens to an upload once its object is safe: the job, the worker pool, and
// the steps, which are scan, type, pictures and facts. What strangers sent is decoded in a child process
// that holds no credentials ([Examiner]); cgo is confined to package vips, which this one never imports.
package processing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// thumbnailSizes are the boxes that pictures are drawn for, in pixels of the long side.
var thumbnailSizes = []int{160, 480, 1600}

// errBusy marks the failure of a dependency that says nothing of the upload: the job waits and keeps its
// attempts.
var errBusy = errors.New("dependency does not answer")

// A Pipeline processes one upload from its object to its outcome.
type Pipeline struct {
	DB       *storage.DB
	Bucket   *object.Bucket
	Scanner  *Scanner
	Examiner *Examiner
	Types    TypePolicy
	TempDir  string // where downloads go; "" for the system's
	Metrics  *Metrics
	Log      *slog.Logger
}

// An outcome is an upload's end: its results, or why it failed.
type outcome struct {
	results storage.Results
	failure *storage.Failure
}

func (o outcome) status() storage.Status {
	if o.failure != nil {
		return storage.Failed
	}
	return storage.Completed
}

func (o outcome) record(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	if o.failure != nil {
		return tx.Fail(ctx, id, *o.failure)
	}
	return tx.Complete(ctx, id, o.results)
}

func failed(reason, format string, args ...any) outcome {
	return outcome{failure: &storage.Failure{Reason: reason, Detail: fmt.Sprintf(format, args...)}}
}

// process runs the steps. It writes nothing but deterministic objects and the status processing, so that it
// can be repeated. An upload that has ended is [storage.ErrWrongStatus].
func (p *Pipeline) process(ctx context.Context, id uuid.UUID, a *attempt) (outcome, error) {
	u, err := p.begin(ctx, id, a.number)
	if err != nil {
		return outcome{}, err
	}
	file, err := p.tempFile()
	if err != nil {
		return outcome{}, err
	}
	defer file.Close() // it has no name any more and is read by nobody else

	verdict, err := p.download(ctx, u, file, a)
	if err != nil {
		return outcome{}, err
	}
	if !verdict.Clean {
		return p.quarantine(ctx, u, verdict)
	}
	kind, out, err := p.checkType(u, file)
	if err != nil || out.failure != nil {
		return out, err
	}
	found, out, err := p.examine(ctx, file, kind, a)
	if err != nil || out.failure != nil {
		return out, err
	}
	derivatives, err := p.store(ctx, u, found.Pictures, a)
	if err != nil {
		return outcome{}, err
	}
	return outcome{results: storage.Results{
		DetectedType: kind, Facts: found.record(), Derivatives: derivatives,
	}}, nil
}

func (p *Pipeline) begin(ctx context.Context, id uuid.UUID, attempt int) (u storage.Upload, err error) {
	err = p.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, id, attempt); err != nil {
			return err
		}
		u, err = tx.Upload(ctx, id)
		return err
	})
	return u, err
}

// tempFile makes a file without a name, which is gone when the process is, however it ends.
func (p *Pipeline) tempFile() (*os.File, error) {
	f, err := os.CreateTemp(p.TempDir, "tramo-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink a temporary file: %w", err), f.Close())
	}
	return f, nil
}

// download reads the object once: into the file, through the scanner, and through the hash that must come
// to what was received. The file grows to the upload's size and no further.
func (p *Pipeline) download(ctx context.Context, u storage.Upload, file *os.File, a *attempt) (Verdict, error) {
	defer a.time(storage.EventScan)()
	body, size, err := p.Bucket.Get(ctx, *u.ObjectKey)
	switch {
	case errors.Is(err, object.ErrNoObject):
		return Verdict{}, fmt.Errorf("object of upload %s: %w", u.ID, err)
	case err != nil:
		return Verdict{}, fmt.Errorf("%w: %w", errBusy, err)
	}
	defer body.Close() // read to its end, or given up
	if size != u.Size {
		return Verdict{}, fmt.Errorf("object of upload %s has %d bytes, not %d", u.ID, size, u.Size)
	}
	sum := sha256.New()
	source := io.TeeReader(io.LimitReader(body, u.Size), io.MultiWriter(file, sum))
	verdict, err := p.Scanner.Scan(ctx, source)
	if errors.Is(err, ErrScannerAway) && ctx.Err() == nil {
		return Verdict{}, fmt.Errorf("%w: %w", errBusy, err)
	}
	if err != nil {
		return Verdict{}, err // perhaps this very file is what clamd died of: it costs an attempt
	}
	if !verdict.Clean {
		return verdict, nil // clamd may have answered before it had everything
	}
	return verdict, p.checkWhole(u, verdict, sum)
}

// checkWhole makes sure that what was scanned is what was received: every byte of it.
func (p *Pipeline) checkWhole(u storage.Upload, v Verdict, sum hash.Hash) error {
	if v.Bytes != u.Size {
		return fmt.Errorf("upload %s: %d bytes were scanned of %d", u.ID, v.Bytes, u.Size)
	}
	if u.SHA256 != nil && !bytes.Equal(sum.Sum(nil), u.SHA256) {
		return fmt.Errorf("upload %s: the object's SHA-256 is not that of what was received", u.ID)
	}
	return nil
}

// quarantine tags an object that is not clean. It is never processed further and never linked.
func (p *Pipeline) quarantine(ctx context.Context, u storage.Upload, v Verdict) (outcome, error) {
	out := failed(storage.ReasonInfected, "A virus was found in this file (%s). Nobody will be able to open it here.", v.Signature)
	if v.Unscannable {
		out = failed(storage.ReasonUnscannable,
			"This file cannot be checked for viruses (%s). Send it without a password, or unpacked.", v.Signature)
	}
	if err := p.Bucket.Tag(ctx, *u.ObjectKey, "scan", out.failure.Reason); err != nil {
		return outcome{}, fmt.Errorf("%w: %w", errBusy, err)
	}
	return out, nil
}

// checkType finds out what the content is; names and declarations are not believed.
func (p *Pipeline) checkType(u storage.Upload, file *os.File) (kind string, out outcome, err error) {
	head := make([]byte, min(u.Size, typeHead))
	if _, err := file.ReadAt(head, 0); err != nil {
		return "", outcome{}, fmt.Errorf("read the file's head: %w", err)
	}
	kind = DetectType(head)
	declared := ""
	if u.DeclaredType != nil {
		declared = *u.DeclaredType
	}
	switch {
	case Mismatch(declared, kind):
		out = failed(storage.ReasonTypeMismatch, "This file was sent as %s, but it is not one. Check that it opens, and send it again.", declared)
	case !p.Types.Allows(kind):
		out = failed(storage.ReasonTypeNotAllowed, "Files of this kind (%s) are not accepted here.", kind)
	}
	return kind, out, nil
}

// typeHead is how many bytes decide the type.
const typeHead = 64 << 10

// examine has pictures drawn and facts read in a child process. A type without pictures has none, and that
// is no failure.
func (p *Pipeline) examine(ctx context.Context, file *os.File, kind string, a *attempt) (Examined, outcome, error) {
	defer a.time(storage.EventExamine)()
	found, err := p.Examiner.Examine(ctx, file, ExamineRequest{ContentType: kind, Sizes: thumbnailSizes})
	var unreadable *UnreadableError
	switch {
	case errors.As(err, &unreadable):
		p.Log.InfoContext(ctx, "picture cannot be read", slog.String("err", unreadable.Cause))
		return found, failed(storage.ReasonUnreadable, "%s", unreadable.Sentence), nil
	case errors.Is(err, ErrUnsupported):
		p.Log.WarnContext(ctx, "picture cannot be drawn", slog.Any("err", err))
		return found, outcome{}, nil
	case err != nil:
		return found, outcome{}, err
	case found.Truncated:
		return found, failed(storage.ReasonUnreadable, "The picture is cut off; send it again from the phone."), nil
	}
	return found, outcome{}, nil
}

// store puts the pictures where their keys say; doing it twice changes nothing.
func (p *Pipeline) store(ctx context.Context, u storage.Upload, pictures []Picture, a *attempt) ([]storage.Derivative, error) {
	defer a.time(storage.EventStore)()
	who, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	keys := object.Keys{Tenant: who.Tenant, Project: u.Project, Upload: u.ID}
	derivatives := make([]storage.Derivative, len(pictures))
	for i, pic := range pictures {
		key := keys.Thumbnail(pic.Size)
		size := int64(len(pic.WebP))
		if err := p.Bucket.Put(ctx, key, webp, bytes.NewReader(pic.WebP), size); err != nil {
			return nil, fmt.Errorf("%w: %w", errBusy, err)
		}
		derivatives[i] = storage.Derivative{
			Size: pic.Size, WidthPx: pic.Width, HeightPx: pic.Height, Bytes: size, ContentType: webp, ObjectKey: key,
		}
	}
	return derivatives, nil
}

const webp = "image/webp"

// record turns what a picture says of itself into typed columns; what it does not say stays null.
func (e Examined) record() storage.Facts {
	f := e.Facts
	r := storage.Facts{
		TakenAt: f.TakenAt, TakenZone: known(f.TakenZone), Latitude: toCentimetres(f.Latitude), Longitude: toCentimetres(f.Longitude),
		AltitudeM: f.Altitude, DirectionDeg: f.Direction, CameraMake: known(f.CameraMake),
		CameraModel: known(f.CameraModel), Lens: known(f.Lens), Software: known(f.Software),
		Orientation: known(int16(f.Orientation)), WidthPx: known(int32(e.Width)), HeightPx: known(int32(e.Height)),
	}
	if local, err := time.Parse("2006-01-02T15:04:05", f.TakenLocal); err == nil {
		r.TakenLocal = &local
	}
	return r
}

// toCentimetres rounds degrees to seven places, about a centimetre: EXIF's fractions of degrees, minutes and
// seconds leave noise behind that looks like precision.
func toCentimetres(degrees *float64) *float64 {
	if degrees == nil {
		return nil
	}
	rounded := math.Round(*degrees*1e7) / 1e7
	return &rounded
}

// known returns nil for a zero value, which is how [Facts] says that it does not know.
func known[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
