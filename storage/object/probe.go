package object

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// scratchPrefix begins the keys of probes. It is below that of all tenants, because a policy may allow no other.
const scratchPrefix = allPrefix + "scratch/"

const (
	probeAgain = 2 * time.Second  // between two probes of a store that does not answer, or cannot be used
	probeLater = 10 * time.Minute // of one that lacks something: it may have been a fault, or be repaired
	probeStep  = 15 * time.Second // bounds one operation
	scratchAge = time.Hour        // after which what a probe that was cut off has left is deleted
)

// A Lack is an operation that the store does not have, or not for these credentials.
type Lack struct {
	Operation string
	Cost      string // of doing without
	Needed    bool   // Tramo cannot work without it
	Err       error
}

func (l Lack) String() string { return fmt.Sprintf("%s (%s): %s", l.Operation, reason(l.Err), l.Cost) }

// A Probe tries what Tramo asks of its store.
type Probe struct {
	Bucket *Bucket
	Log    *slog.Logger

	found atomic.Pointer[[]Lack] // nil until the store has answered
}

// Run probes until the store has all, and logs what it lacks when that changes.
func (p *Probe) Run(ctx context.Context) error {
	for {
		wait := probeAgain
		lacks, err := p.Bucket.probe(ctx)
		if err == nil {
			p.tell(ctx, lacks)
			p.found.Store(&lacks)
			if len(lacks) == 0 {
				return nil
			}
			if !slices.ContainsFunc(lacks, func(l Lack) bool { return l.Needed }) {
				wait = probeLater
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (p *Probe) tell(ctx context.Context, lacks []Lack) {
	before := p.found.Load()
	switch {
	case before != nil && list(*before) == list(lacks):
	case len(lacks) == 0:
		p.Log.InfoContext(ctx, "S3 store has all that Tramo needs")
	default:
		p.Log.WarnContext(ctx, "S3 store lacks operations", slog.String("lacks", list(lacks)))
	}
}

// Ready reports whether the bucket is there, and the store has what Tramo cannot do without.
func (p *Probe) Ready(ctx context.Context) error {
	if err := p.Bucket.Ping(ctx); err != nil {
		return err
	}
	found := p.found.Load()
	if found == nil {
		return errors.New("the store is being tried")
	}
	var needed []Lack
	for _, l := range *found {
		if l.Needed {
			needed = append(needed, l)
		}
	}
	if len(needed) > 0 {
		return errors.New("the store lacks " + list(needed))
	}
	return nil
}

// Complete reports what the store lacks, and what that costs.
func (p *Probe) Complete(context.Context) error {
	if found := p.found.Load(); found != nil && len(*found) > 0 {
		return errors.New("the store lacks " + list(*found))
	}
	return nil
}

func list(lacks []Lack) string {
	all := make([]string, len(lacks))
	for i, l := range lacks {
		all[i] = l.String()
	}
	return strings.Join(all, "; ")
}

// A probing is a probe in progress.
type probing struct {
	*Bucket
	ctx    context.Context //nolint:containedctx // of one call of probe
	prefix string
	bytes  []byte
	lacks  []Lack
	err    error // the store does not answer
}

// probe tries each operation under a key that nobody else uses. An error means that the store does not answer.
func (b *Bucket) probe(ctx context.Context) ([]Lack, error) {
	p := &probing{Bucket: b, ctx: ctx, prefix: scratchPrefix + uuid.NewString() + "/", bytes: []byte("Tramo tries " + rand.Text())}
	defer p.clean()
	object, copied := p.prefix+"object", p.prefix+"copy"
	const noUploads, noJoin = "no upload can be stored", "bytes of concatenated uploads go through the server"

	p.needs("PutObject", noUploads, func(ctx context.Context) error {
		return b.Put(ctx, object, octetStream, bytes.NewReader(p.bytes), p.size())
	})
	p.needs("HeadObject", noUploads, func(ctx context.Context) error { return b.checkCopy(ctx, object, p.size()) })
	p.needs("GetObject", "no upload can be processed", func(ctx context.Context) error { return p.check(ctx, object) })
	p.needs("GetObject of a range", "no uploads can be concatenated", func(ctx context.Context) error {
		got := make([]byte, 3)
		return errors.Join(b.readRange(ctx, object, span{start: 2, end: 5}, got), same(got, p.bytes[2:5]))
	})
	p.needs("multipart upload", "no upload above TRAMO_PART_SIZE can be stored", func(ctx context.Context) error {
		return p.multipart(ctx, p.prefix+"parts", false, func(id, key string) (storage.Part, error) { return b.putPart(ctx, key, id, 1, runOf(p.bytes)) })
	})
	p.wants("UploadPartCopy", noJoin, func(ctx context.Context) error {
		err := p.multipart(ctx, p.prefix+"copied", true, func(id, key string) (storage.Part, error) {
			return b.copyPart(ctx, key, id, 1, object, span{end: p.size()}, true)
		})
		b.noPartCopy.Store(err != nil && !errors.Is(err, ErrUnavailable))
		return err
	})
	p.wants("CopyObject", "bytes that go into quarantine and out of it go through the worker", func(ctx context.Context) error {
		return errors.Join(b.copyWhole(ctx, object, copied), p.check(ctx, copied))
	})
	p.wants("object tagging", "objects in quarantine have no tag", p.tag)
	p.wants("ListObjectsV2", "no inventory and no erasure", p.list)
	p.wants("ListMultipartUploads and AbortMultipartUpload", "no erasure, and parts that nobody needs stay", p.abort)
	p.wants("presigned GetObject with response-content-type and -disposition", "downloads do not have their name and type", p.link)
	p.wants("DeleteObjects", "objects are deleted one at a time", func(ctx context.Context) error {
		_, err := b.deleteAll(ctx, []string{copied})
		return errors.Join(err, b.checkGone(ctx, copied))
	})
	p.wants("DeleteObject", "what nobody needs stays", func(ctx context.Context) error {
		return errors.Join(b.Delete(ctx, object), b.checkGone(ctx, object))
	})
	return p.lacks, p.err
}

func (p *probing) size() int64 { return int64(len(p.bytes)) }

func (p *probing) needs(operation, cost string, try func(context.Context) error) {
	p.try(Lack{Operation: operation, Cost: cost, Needed: true}, try)
}

func (p *probing) wants(operation, cost string, try func(context.Context) error) {
	p.try(Lack{Operation: operation, Cost: cost}, try)
}

// try notes a lack. A store that does not do one thing, and is there, lacks that; one that is not there says nothing.
func (p *probing) try(l Lack, try func(context.Context) error) {
	if p.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, probeStep)
	defer cancel()
	if l.Err = recovered(func() error { return try(ctx) })(); l.Err == nil {
		return
	}
	if p.err = p.Ping(p.ctx); p.err == nil {
		p.lacks = append(p.lacks, l)
	}
}

// check makes sure that an object is what was put.
func (p *probing) check(ctx context.Context, key string) error {
	body, _, err := p.Get(ctx, key)
	if err != nil {
		return err
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	return errors.Join(err, same(got, p.bytes))
}

func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: %d bytes come back that are not the %d that were put", ErrUnsupported, len(got), len(want))
	}
	return nil
}

// multipart makes an object of one part.
func (p *probing) multipart(ctx context.Context, key string, copied bool, put func(id, key string) (storage.Part, error)) error {
	id, err := p.beginMultipart(ctx, key, copied)
	if err != nil {
		return err
	}
	part, err := put(id, key)
	if err != nil {
		_ = p.Abort(context.WithoutCancel(ctx), key, id) // a later probe finds it
		return err
	}
	if err := p.completeMultipart(ctx, key, id, []storage.Part{part}); err != nil {
		return err
	}
	return p.check(ctx, key)
}

// tag makes sure that the object is still there afterwards.
func (p *probing) tag(ctx context.Context) error {
	key := p.prefix + "tagged"
	err := p.Put(ctx, key, octetStream, bytes.NewReader(p.bytes), p.size())
	p.noTags.Store(false)
	for _, do := range []func() error{
		func() error { return p.Tag(ctx, key, p.size(), "scan", "probe") },
		func() error { return p.untag(ctx, key) },
		func() error { return p.check(ctx, key) },
	} {
		if err == nil {
			err = do()
		}
	}
	p.noTags.Store(err != nil && !errors.Is(err, ErrUnavailable))
	return err
}

// list also deletes what earlier probes have left.
func (p *probing) list(ctx context.Context) error {
	seen := false
	for o, err := range p.objectsUnder(ctx, scratchPrefix) {
		if err != nil {
			return err
		}
		seen = seen || o.Key == p.prefix+"object"
		if time.Since(o.Since) > scratchAge {
			_ = p.Delete(ctx, o.Key) // the next probe tries again
		}
	}
	if !seen {
		return lacking("ListObjectsV2", "object that was put before")
	}
	_, _, err := p.listObjects(ctx, p.prefix+"nothing/", "")
	return err
}

func (p *probing) abort(ctx context.Context) error {
	key := p.prefix + "aborted"
	id, err := p.beginMultipart(ctx, key, false)
	if err != nil {
		return err
	}
	seen := false
	for u, listErr := range p.multipartsUnder(ctx, scratchPrefix) {
		if err = listErr; err != nil {
			break
		}
		seen = seen || u.Key == key && u.MultipartID == id
		if time.Since(u.Since) > scratchAge {
			_ = p.Abort(ctx, u.Key, u.MultipartID)
		}
	}
	if err == nil && !seen {
		err = lacking("ListMultipartUploads", "multipart upload that was created before")
	}
	return errors.Join(err, p.Abort(ctx, key, id))
}

// link reads the object as a browser does.
func (p *probing) link(ctx context.Context) error {
	want := Presentation{
		Type: "image/jpeg", Disposition: `attachment; filename="probe.jpg"`, Cache: "private", Method: http.MethodGet, Life: LinkLife,
	}
	url, err := p.linkAs(ctx, p.prefix+"object", want)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("follow a link: %w", err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	switch {
	case err != nil:
		return fmt.Errorf("follow a link: %w", err)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: a link leads to status %d", ErrUnsupported, res.StatusCode)
	case res.Header.Get("Content-Type") != want.Type || res.Header.Get("Content-Disposition") != want.Disposition:
		return fmt.Errorf("%w: a link leads to another type and name than it says", ErrUnsupported)
	}
	return same(got, p.bytes)
}

func (b *Bucket) checkGone(ctx context.Context, key string) error {
	_, err := b.Size(ctx, key)
	if errors.Is(err, ErrNoObject) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: what was deleted is there", ErrUnsupported)
	}
	return err
}

// clean deletes what is left; what cannot be deleted now a later probe finds.
func (p *probing) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), probeStep)
	defer cancel()
	for _, name := range []string{"object", "copy", "parts", "copied", "tagged"} {
		_ = p.Delete(ctx, p.prefix+name)
	}
}
