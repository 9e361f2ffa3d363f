package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// Many creations at once at the edge of a quota fill it exactly and never go beyond.
func TestQuotaAtTheEdge(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	const size, fits, tries = 7, 40, 100
	ctx := d.NewTenant(t, size*fits+size-1)
	var admitted atomic.Int64
	g := new(errgroup.Group)
	g.SetLimit(16)
	for range tries {
		g.Go(func() error {
			err := d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, storagetest.NewUpload(size)) })
			switch {
			case err == nil:
				admitted.Add(1)
			case !errors.Is(err, storage.ErrQuotaExceeded):
				return err
			}
			return nil
		})
	}
	stack.Must(t, stack.Ended(t, "creations", g.Wait))
	stack.Want(t, admitted.Load(), fits, "admitted uploads")
	d.WantRoom(t, ctx, size-1)
	d.Create(t, ctx, size-1)
	d.WantRoom(t, ctx, 0)
}

// However an unfinished upload ends, and by however many requests at once, its quota is refunded once.
func TestRefundOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ends := map[string]func(context.Context, storage.Tx, uuid.UUID) error{
		"cancel": func(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel})
		},
		"reject": func(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch}))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			ctx := d.NewTenant(t, 1000)
			id := d.Create(t, ctx, 300)
			d.Create(t, ctx, 500)
			var ended atomic.Int64
			g := new(errgroup.Group)
			for range 8 {
				g.Go(func() error {
					err := d.API.InTenant(ctx, func(tx storage.Tx) error { return end(ctx, tx, id) })
					if err == nil {
						ended.Add(1)
					} else if !errors.Is(err, storage.ErrWrongStatus) {
						return err
					}
					return nil
				})
			}
			stack.Must(t, stack.Ended(t, "eight ends of one upload", g.Wait))
			stack.Want(t, ended.Load(), 1, "how often it ended")
			d.WantRoom(t, ctx, 500)
		})
	}
}

func TestStoredBytesStayCharged(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 300)
	d.bring(t, ctx, id, storage.Processing)
	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, id, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected}))
	})
	d.WantRoom(t, ctx, 700)
}

// Whoever moves quota locks the tenant first: an upload that settles waits for the tenant with its own row still free,
// so that it never waits in a circle with a cancellation.
func TestTenantIsLockedBeforeUpload(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<40)
	id := d.Create(t, ctx, 10)
	admin := d.Admin(t)
	_, err := admin.Exec(t.Context(), `update uploads set charged_bytes = 30 where id = $1`, id)
	stack.Must(t, err)
	_, err = admin.Exec(t.Context(), `update tenants set charged_bytes = 30`)
	stack.Must(t, err)
	holding, err := d.Admin(t).Begin(t.Context())
	stack.Must(t, err)
	_, err = holding.Exec(t.Context(), `select from tenants for no key update`)
	stack.Must(t, err)
	ended := make(chan error, 1)
	go func() {
		ended <- d.API.InTenant(ctx, func(tx storage.Tx) error {
			_, err := tx.MarkUploaded(ctx, id, "key", nil)
			return err
		})
	}()
	d.UntilLocked(t, "the settling upload waits", "%")
	if _, err := admin.Exec(t.Context(), `select from uploads for update nowait`); err != nil {
		t.Errorf("the upload is locked before the tenant: %v", err)
	}
	stack.Must(t, holding.Commit(t.Context()))
	stack.Must(t, stack.Receive(t, "end of the upload", ended))
	d.WantRoom(t, ctx, 1<<40-10)
	var charged int64
	stack.Must(t, admin.QueryRow(t.Context(), `select charged_bytes from uploads`).Scan(&charged))
	stack.Want(t, charged, 10, "charge in the upload")
}

// Cancel uploads while others are created under the same client ids: none of them deadlocks, and the quota
// is right in the end.
func TestCancelAndCreateAgainAtOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<40)
	g := new(errgroup.Group)
	for i := range 4 {
		g.Go(func() error {
			for range 25 {
				if err := d.replace(ctx, fmt.Sprint(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	stack.Must(t, stack.Ended(t, "cancellations and creations", g.Wait))
	var live int64
	stack.Must(t, d.Admin(t).QueryRow(t.Context(), `select coalesce(sum(size), 0) from uploads where status = 'pending'`).Scan(&live))
	d.WantRoom(t, ctx, 1<<40-live)
}

// replace makes an upload, and cancels it while it is made again.
func (d *database) replace(ctx context.Context, clientID string) error {
	n := storagetest.NewUpload(10)
	n.ClientID = clientID
	make := func(n storage.NewUpload) error {
		err := d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
		if errors.Is(err, storage.ErrDuplicateClientID) {
			return nil
		}
		return err
	}
	if err := make(n); err != nil {
		return err
	}
	g := new(errgroup.Group)
	g.Go(func() error {
		err := d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.Move(ctx, n.ID, storage.Transition{Move: storage.MoveCancel}) })
		if errors.Is(err, storage.ErrWrongStatus) {
			return nil // an older upload had the client id
		}
		return err
	})
	again := storagetest.NewUpload(10)
	again.ClientID = clientID
	g.Go(func() error { return make(again) })
	if err := g.Wait(); err != nil {
		return err
	}
	err := d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.Move(ctx, again.ID, storage.Transition{Move: storage.MoveCancel}) })
	if errors.Is(err, storage.ErrWrongStatus) {
		return nil
	}
	return err
}

func TestClientID(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, other := d.NewTenant(t, 1000), d.NewTenant(t, 1000)
	under := func(ctx context.Context, user string) (uuid.UUID, error) {
		n := storagetest.NewUpload(1)
		n.ClientID, n.UserID = "IMG_1", user
		return n.ID, d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
	}
	first, err := under(ctx, "ana")
	stack.Must(t, err)
	for who, c := range map[string]struct {
		ctx  context.Context
		user string
	}{"another user": {ctx, "luis"}, "another tenant's user": {other, "ana"}} {
		if _, err := under(c.ctx, c.user); err != nil {
			t.Errorf("%s has the same id: %v", who, err)
		}
	}

	ends := []struct {
		name string
		end  func(tx storage.Tx, id uuid.UUID) error
		free bool
	}{
		{"pending", func(storage.Tx, uuid.UUID) error { return nil }, false},
		{"cancelled", func(tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel})
		}, true},
		{"rejected", func(tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch}))
		}, true},
		{"failed", func(tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected}))
		}, true},
		{"uploaded", func(tx storage.Tx, id uuid.UUID) error {
			_, err := tx.MarkUploaded(ctx, id, "key", nil)
			return err
		}, false},
	}
	holder := first
	for _, c := range ends {
		d.Must(t, ctx, func(tx storage.Tx) error { return c.end(tx, holder) })
		id, err := under(ctx, "ana")
		if !c.free {
			stack.WantErr(t, err, storage.ErrDuplicateClientID)
			id = holder
		} else if err != nil {
			t.Errorf("%s: the id is not free: %v", c.name, err)
		}
		d.Must(t, ctx, func(tx storage.Tx) error {
			found, err := tx.UploadByClientID(ctx, "ana", "IMG_1")
			stack.Want(t, found.ID, id, "%s: upload that the id names", c.name)
			return err
		})
		holder = id
	}
	_, err = under(ctx, "")
	stack.Must(t, err)
	d.Create(t, ctx, 1) // without a client id, any number of times
	d.Create(t, ctx, 1)
}

// bring takes an upload to a status by the way that uploads go: a server's until it is uploaded, a worker's from then on.
func (d *database) bring(t *testing.T, ctx context.Context, id uuid.UUID, s storage.Status) {
	t.Helper()
	step := func(by *storage.DB, fn func(storage.Tx) error, to ...storage.Status) {
		t.Helper()
		if slices.Contains(to, s) {
			stack.Must(t, by.InTenant(ctx, fn))
		}
	}
	becomes := func(status string) func(storage.Tx) error {
		return func(tx storage.Tx) error {
			_, err := tx.Exec(ctx, `update uploads set status = $2 where id = $1`, id, status)
			return err
		}
	}
	step(d.API, becomes("uploading"), storage.Uploading)
	step(d.API, func(tx storage.Tx) error {
		_, err := tx.MarkUploaded(ctx, id, "key", make([]byte, 32))
		return err
	}, storage.Uploaded, storage.Processing, storage.Completed, storage.Failed)
	step(d.API, func(tx storage.Tx) error { return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel}) }, storage.Cancelled)
	step(d.API, becomes("expired"), storage.Expired)
	step(d.Worker, func(tx storage.Tx) error { return tx.MarkProcessing(ctx, id, 1) }, storage.Processing, storage.Completed, storage.Failed)
	step(d.Worker, func(tx storage.Tx) error {
		return tx.Move(ctx, id, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected}))
	}, storage.Failed)
	step(d.Worker, func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) }, storage.Completed)
	if got := d.Upload(t, ctx, id).Status; got != s {
		t.Fatalf("the upload is %s, wanted %s", got, s)
	}
}

var everyStatus = []storage.Status{
	storage.Pending, storage.Uploading, storage.Uploaded, storage.Processing,
	storage.Completed, storage.Failed, storage.Expired, storage.Cancelled,
}

// Every transition from every status: those that are allowed leave an entry in the timeline; the others
// change nothing at all.
func TestTransitions(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	infected := storage.Failure{Reason: storage.ReasonInfected, Detail: "x"}
	transitions := []struct {
		name string
		do   func(tx storage.Tx, id uuid.UUID) error
		to   storage.Status
		from []storage.Status
		noop []storage.Status // from these states it is no error, and changes nothing
	}{
		{"uploaded", func(tx storage.Tx, id uuid.UUID) error {
			_, err := tx.MarkUploaded(ctx, id, "key", nil)
			return err
		}, storage.Uploaded, []storage.Status{storage.Pending, storage.Uploading}, []storage.Status{storage.Uploaded, storage.Processing, storage.Completed, storage.Failed}},
		{"processing", func(tx storage.Tx, id uuid.UUID) error { return tx.MarkProcessing(ctx, id, 1) },
			storage.Processing, []storage.Status{storage.Uploaded}, []storage.Status{storage.Processing}},
		{"complete", func(tx storage.Tx, id uuid.UUID) error {
			return tx.Complete(ctx, id, storage.Results{DetectedType: "image/jpeg"})
		}, storage.Completed, []storage.Status{storage.Processing}, nil},
		{"fail", func(tx storage.Tx, id uuid.UUID) error { return tx.Move(ctx, id, storage.MoveFail.Because(infected)) },
			storage.Failed, []storage.Status{storage.Pending, storage.Uploading, storage.Uploaded, storage.Processing}, nil},
		{"cancel", func(tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel})
		},
			storage.Cancelled, []storage.Status{storage.Pending, storage.Uploading}, nil},
		{"reject", func(tx storage.Tx, id uuid.UUID) error { return tx.Move(ctx, id, storage.MoveReject.Because(infected)) },
			storage.Failed, []storage.Status{storage.Pending, storage.Uploading}, nil},
	}
	admin := d.Admin(t)
	for _, tr := range transitions {
		for _, from := range everyStatus {
			t.Run(fmt.Sprintf("%s/%s", tr.name, from), func(t *testing.T) {
				id := d.Create(t, ctx, 10)
				d.bring(t, ctx, id, from)
				entries := func() (n int) {
					stack.Must(t, admin.QueryRow(ctx, `select count(*) from timeline where upload_id = $1`, id).Scan(&n))
					return n
				}
				before, noted := d.Upload(t, ctx, id), entries()
				err := d.Worker.InTenant(ctx, func(tx storage.Tx) error { return tr.do(tx, id) })
				after := d.Upload(t, ctx, id)
				switch {
				case slices.Contains(tr.from, from):
					if err != nil || after.Status != tr.to || !after.UpdatedAt.After(before.UpdatedAt) {
						t.Errorf("got %s, %v", after.Status, err)
					}
					if tr.to != storage.Processing && entries() != noted+1 {
						t.Errorf("the timeline got %d entries", entries()-noted)
					}
					return
				case !slices.Contains(tr.noop, from):
					stack.WantErr(t, err, storage.ErrWrongStatus)
				case err != nil:
					t.Error(err)
				}
				if tr.to != from && (after.Status != before.Status || !after.UpdatedAt.Equal(before.UpdatedAt) || entries() != noted) {
					t.Errorf("a forbidden transition made %+v of %+v", after, before)
				}
			})
		}
	}
}

// An upload whose content was rejected is never recorded as uploaded afterwards.
func TestRejectedIsNeverUploaded(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 10)
	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, id, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch}))
	})
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.MarkUploaded(ctx, id, "key", nil)
		return err
	}), storage.ErrWrongStatus)
}

// The page cursor is an id: pages cover all uploads that were there, each once, while new ones arrive.
func TestPagesWhileUploadsArrive(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, other := d.NewTenant(t, 1<<20), d.NewTenant(t, 1<<20)
	var there []uuid.UUID
	for range 53 {
		there = append(there, d.Create(t, ctx, 1))
		d.Create(t, other, 1)
	}
	slices.Reverse(there)
	var seen []uuid.UUID
	page := storage.Page{Limit: 10}
	for range 100 {
		var got []storage.Upload
		d.Must(t, ctx, func(tx storage.Tx) (err error) {
			got, err = tx.Uploads(ctx, page)
			return err
		})
		for _, u := range got {
			seen = append(seen, u.ID)
		}
		if len(got) < page.Limit {
			break
		}
		page.Before = got[len(got)-1].ID
		d.Create(t, ctx, 1)
	}
	stack.Want(t, seen, there, "ids on the pages")
}

func TestPageFilters(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	for _, project := range []string{"a", "b"} {
		for _, batch := range []string{"", "1", "2"} {
			n := storagetest.NewUpload(1)
			n.Project, n.Batch = project, batch
			d.Must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
			if batch == "2" {
				d.bring(t, ctx, n.ID, storage.Cancelled)
			}
		}
	}
	for _, c := range []struct {
		page storage.Page
		want int
	}{
		{storage.Page{}, 6},
		{storage.Page{Project: "a"}, 3},
		{storage.Page{Batch: "1"}, 2},
		{storage.Page{Project: "a", Batch: "1"}, 1},
		{storage.Page{Status: storage.Cancelled}, 2},
		{storage.Page{Status: storage.Pending, Project: "b"}, 2},
		{storage.Page{Project: "' or true --"}, 0},
	} {
		c.page.Limit = 100
		d.Must(t, ctx, func(tx storage.Tx) error {
			got, err := tx.Uploads(ctx, c.page)
			stack.Want(t, len(got), c.want, "uploads shown by %+v", c.page)
			return err
		})
	}
}

func TestCompleteKeepsResults(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	id := d.Create(t, ctx, 10)
	d.bring(t, ctx, id, storage.Processing)
	lat, lon, model := -12.05, -77.04, "Pixel 8"
	r := storage.Results{
		DetectedType: "image/jpeg",
		Facts:        storage.Facts{Place: storage.Place{Latitude: &lat, Longitude: &lon}, Camera: storage.Camera{CameraModel: &model}},
		Tags:         storage.Tags{Tags: []byte(`{"IFD0": {"Model": "Pixel 8"}}`), Truncated: true},
		Thumbnails: []storage.Thumbnail{
			{Size: 480, WidthPx: 480, HeightPx: 360, Bytes: 9, ContentType: "image/webp", ObjectKey: "k480"},
			{Size: 160, WidthPx: 160, HeightPx: 120, Bytes: 7, ContentType: "image/webp", ObjectKey: "k160"},
		},
	}
	stack.Must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { return tx.Complete(ctx, id, r) }))
	u := d.Upload(t, ctx, id)
	if u.Latitude == nil || *u.Latitude != lat || *u.CameraModel != model || *u.DetectedType != "image/jpeg" || u.CompletedAt == nil {
		t.Errorf("got %+v", u)
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		ds, err := tx.Thumbnails(ctx, id, uuid.New())
		if len(ds) != 2 || ds[0].Size != 160 || ds[1].ObjectKey != "k480" || ds[0].UploadID != id {
			t.Errorf("got %+v", ds)
		}
		return err
	})
	d.Must(t, ctx, func(tx storage.Tx) error {
		tags, err := tx.Tags(ctx, id)
		if string(tags.Tags) != `{"IFD0": {"Model": "Pixel 8"}}` || !tags.Truncated {
			t.Errorf("the tags are %s", tags.Tags)
		}
		_, missing := tx.Tags(ctx, uuid.New())
		stack.WantErr(t, missing, storage.ErrNotFound)
		return err
	})
	for name, bad := range map[string]string{"an array": `[]`, "too large": `{"IFD0": {"Make": "` + strings.Repeat("x", 64<<10) + `"}}`} {
		if _, err := d.Admin(t).Exec(t.Context(), `update tags set tags = $1`, bad); storagetest.SQLState(err) != "23514" {
			t.Errorf("tags may be %s: %v", name, err)
		}
	}
	counts, err := d.Worker.CountUnended(t.Context())
	stack.Must(t, err)
	if counts[storage.Processing] != 0 || len(counts) != 4 {
		t.Errorf("counted are %v", counts)
	}
}

func TestCreateTenant(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	id, created, err := d.Worker.CreateTenant(t.Context(), "Obras S.A.", 5)
	if !created || err != nil {
		t.Fatal(created, err)
	}
	again, created, err := d.Worker.CreateTenant(t.Context(), "Obras S.A.", 7)
	if created || again != id || err != nil {
		t.Errorf("again: %s, %t, %v", again, created, err)
	}
	d.WantRoom(t, storagetest.As(t.Context(), id), 5)
	_, err = d.Worker.TenantByName(t.Context(), "nobody")
	stack.WantErr(t, err, storage.ErrNotFound)
	d.Must(t, storagetest.As(t.Context(), uuid.New()), func(tx storage.Tx) error {
		_, err := tx.Account(t.Context())
		stack.WantErr(t, err, storage.ErrNotFound)
		return nil
	})
}
