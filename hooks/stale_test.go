package hooks_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// A process freezes, its lease is taken over, and it wakes up: what it makes of the upload as it was before ends nothing. The
// bytes that the other has acknowledged stay, and it finishes the upload.
func TestStaleHolderEndsNothing(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("photo "), 1000)
	script := bytes.Repeat([]byte("#!/bin/sh\nrm -rf /\n"), 400)[:len(content)]
	for name, c := range map[string]struct {
		before int // bytes that are there when it opens the upload
		end    func(ctx context.Context, u *hooks.Upload) error
	}{
		"it finds its tail replaced": {100, func(ctx context.Context, u *hooks.Upload) error {
			_, err := u.Write(ctx, 100, hookstest.Body(content[100:]), nil)
			return err
		}},
		"it cancels": {0, func(ctx context.Context, u *hooks.Upload) error { return u.Cancel(ctx) }},
		"it refuses the type": {0, func(ctx context.Context, u *hooks.Upload) error {
			_, err := u.Write(ctx, 0, hookstest.Body(script), nil)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.Serve(t)
			s.Admission.Policy.MaxSize = int64(len(content))
			ctx := s.NewTenant(t, int64(len(content)))
			id := s.Post(t, ctx, hooks.Request{Size: int64(len(content))})
			write := func(u *hooks.Upload, from, to int) {
				t.Helper()
				n, err := u.Write(ctx, int64(from), hookstest.Body(content[from:to]), nil)
				stack.Must(t, err)
				if n != int64(to-from) {
					t.Fatalf("%d bytes were kept", n)
				}
			}
			if c.before > 0 {
				u := s.open(t, ctx, id)
				write(u, 0, c.before)
				u.Close(ctx)
			}
			stale := s.open(t, ctx, id)
			defer stale.Close(ctx)
			s.Exec(t, `update lease_holders set expires_at = now() - interval '1 second' where id = (select holder_id from upload_leases where upload_id = $1)`, id)
			other := *s.Uploads
			other.Leases = s.Leases(t, "other")
			u, err := other.Open(ctx, id, stack.Patience, nil)
			stack.Must(t, err)
			defer u.Close(ctx)
			write(u, c.before, 300)

			stack.WantErr(t, c.end(ctx, stale), storage.ErrFenced)

			write(u, 300, len(content))
			stack.Must(t, u.Finish(ctx))
			if got := s.Upload(t, ctx, id); got.Status != storage.Uploaded {
				t.Errorf("the upload is %s", got.Status)
			}
		})
	}
}
