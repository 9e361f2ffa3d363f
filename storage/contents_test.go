package storage_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// content reads where an upload's bytes are.
func (d *database) content(t *testing.T, ctx context.Context, id uuid.UUID) (c storage.Content) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) error {
		storage.ReadContent(tx, id, new(storage.Upload), &c)
		return nil
	})
	return c
}

// leased makes an upload that a living process writes with a fence.
func (d *database) leased(t *testing.T, ctx context.Context, size int64) (id uuid.UUID, fence int64) {
	t.Helper()
	id = d.Create(t, ctx, size)
	stack.Must(t, d.Admin(t).QueryRow(t.Context(), `
		with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
		insert into upload_leases select $1, $2, id, nextval('fences') + 1 from me returning fence`,
		storagetest.TenantOf(t, ctx), id).Scan(&fence))
	return id, fence
}

// A writer whose view is stale, whose lease is another's, or who comes after the end, changes nothing, not
// even the part or the tail that it brings.
func TestAdvanceRefuses(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id, fence := d.leased(t, ctx, 100)
	advance := func(fence int64, p storage.Progress) error {
		return d.API.InTenant(ctx, func(tx storage.Tx) error {
			if p.TailSize > 0 {
				if err := tx.AppendTail(ctx, id, p.From, make([]byte, p.To-p.From)); err != nil {
					return err
				}
			}
			return tx.Advance(ctx, id, fence, p)
		})
	}
	stack.Must(t, advance(fence, storage.Progress{To: 10, HashState: []byte("state"), TailSize: 10}))
	stack.Want(t, d.Upload(t, ctx, id).Status, storage.Uploading, "status")
	for _, c := range []struct {
		name  string
		fence int64
		from  int64
	}{
		{"stale view", fence, 0},
		{"view from the future", fence, 20},
		{"older fence", fence - 1, 10},
		{"newer fence", fence + 1, 10},
		{"no fence", 0, 10},
	} {
		for _, p := range []storage.Progress{
			{From: c.from, To: 30, TailSize: 30},
			{From: c.from, To: 30, Part: &storage.Part{Number: 1, Size: 30, ETag: "e"}},
			{From: c.from, To: 30, Object: "key"},
		} {
			err := advance(c.fence, p)
			if !errors.Is(err, storage.ErrFenced) && (c.from != 0 || p.TailSize == 0) { // a tail at 0 is there already
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	got := d.content(t, ctx, id)
	if got.Received != 10 || got.TailSize != 10 || got.ObjectKey != nil || got.Stored || d.tail(t, ctx, id) != 10 {
		t.Errorf("the content became %+v, its tail has %d bytes", got, d.tail(t, ctx, id))
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		parts, err := tx.Parts(ctx, id)
		if len(parts) != 0 {
			t.Errorf("parts are %+v", parts)
		}
		return err
	})

	stack.Must(t, advance(fence, storage.Progress{From: 10, To: 100, HadTail: true, Object: "key"}))
	stack.Want(t, d.tail(t, ctx, id), 0, "bytes of the tail")
	stack.WantErr(t, advance(fence, storage.Progress{From: 100, To: 100, Object: "another"}), storage.ErrFenced)
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.ReservePart(ctx, id, fence, "mp", "key")
		return err
	}), storage.ErrFenced)
}

// tail is how many bytes the rows of the upload's tail have.
func (d *database) tail(t *testing.T, ctx context.Context, id uuid.UUID) (n int) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) error {
		n = 0
		return tx.Tail(ctx, id, func(p []byte) error {
			n += len(p)
			return nil
		})
	})
	return n
}

// However many reserve at once, no part number is handed out twice, and only one multipart upload counts.
func TestReservePart(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id, fence := d.leased(t, ctx, 100)
	reserve := func(fence int64, multipart string) (n int32, err error) {
		err = d.API.InTenant(ctx, func(tx storage.Tx) error {
			n, err = tx.ReservePart(ctx, id, fence, multipart, "key")
			return err
		})
		return n, err
	}
	const many = 20
	var taken [many + 1]atomic.Bool
	g := new(errgroup.Group)
	for range many {
		g.Go(func() error {
			n, err := reserve(fence, "mp")
			if err == nil && (n < 1 || n > many || taken[n].Swap(true)) {
				t.Errorf("number %d was handed out twice, or is out of order", n)
			}
			return err
		})
	}
	stack.Must(t, stack.Ended(t, "reservations", g.Wait))
	_, err := reserve(fence, "another")
	stack.WantErr(t, err, storage.ErrFenced)
	d.Exec(t, `delete from upload_leases where upload_id = $1`, id)
	_, err = reserve(fence, "mp")
	stack.WantErr(t, err, storage.ErrFenced)
	if c := d.content(t, ctx, id); *c.MultipartID != "mp" || *c.ObjectKey != "key" {
		t.Errorf("the content is %+v", c)
	}
}

// A hash's state, a key and nothing else: what is saved is what is read.
func TestContentRoundTrip(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id, fence := d.leased(t, ctx, 100)
	if got := d.content(t, ctx, id); got.Received != 0 || got.HashState != nil || got.TailSize != 0 || got.NextPart != 1 || got.Stored {
		t.Errorf("a new content is %+v", got)
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		n, err := tx.ReservePart(ctx, id, fence, "mp", "key")
		if err != nil {
			return err
		}
		return tx.Advance(ctx, id, fence, storage.Progress{
			To: 7, HashState: []byte{0, 1, 255}, Part: &storage.Part{Number: n, Size: 7, ETag: `"e"`, Checksum: "c"}})
	})
	got := d.content(t, ctx, id)
	if got.Received != 7 || string(got.HashState) != "\x00\x01\xff" || *got.MultipartID != "mp" || *got.ObjectKey != "key" {
		t.Errorf("got %+v", got)
	}
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		storage.ReadContent(tx, uuid.New(), new(storage.Upload), new(storage.Content))
		return nil
	}), storage.ErrNotFound)
}
