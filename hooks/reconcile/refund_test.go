package reconcile_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

const (
	mib  = 1 << 20
	part = 8 * mib // that of a store by default
	size = 12 * mib
)

// A yard is a site of one tenant that reaches S3 through a proxy.
type yard struct {
	*hookstest.Tenant
	proxy   *stack.S3Proxy
	batches *batch.Service
	manager context.Context //nolint:containedctx // acts for the tenant, for as long as the test runs
}

func newYard(t *testing.T, quota int64) *yard {
	t.Helper()
	s := hookstest.New(t)
	proxy := s.Through(t)
	s.Admission.Policy.MaxSize = 2 * size
	s.Serve(t)
	ctx := s.NewTenant(t, quota)
	n := &hookstest.Tenant{Site: s, Ctx: ctx, ID: storagetest.TenantOf(t, ctx)}
	return &yard{n, proxy, &batch.Service{
		Config: batch.DefaultConfig(), DB: s.API, Policy: s.Admission.Policy, Queue: s.Queue, Uploads: s.Uploads,
		Metrics: s.Uploads.Metrics, Log: s.Log,
	}, n.As(t.Context(), "marta", tenant.Constructora)}
}

// batch makes a batch with so many uploads of [size] bytes, or says why not.
func (y *yard) batch(n int) (id uuid.UUID, uploads []uuid.UUID, err error) {
	m := batch.Manifest{Name: "lunes"}
	for range n {
		m.Uploads = append(m.Uploads, batch.Entry{ClientID: uuid.NewString(), Filename: "a.jpg", Size: size})
	}
	made, err := y.batches.Create(y.Ctx, m, batch.IdempotencyKey{})
	if err != nil {
		return id, nil, err
	}
	for _, u := range made.Uploads {
		uploads = append(uploads, u.ID)
	}
	return made.Batch.ID, uploads, nil
}

// content are bytes that no list of types refuses.
var content = make([]byte, 2*size)

// refuseRemoval lets S3 refuse to remove anything, until it is called again with false.
func (y *yard) refuseRemoval(refuse bool) {
	y.proxy.Fault(func(kind string, _ int) stack.Fault {
		if refuse && (kind == "AbortMultipartUpload" || kind == "DeleteObject" || kind == "DeleteObjects") {
			return stack.Fault{Status: http.StatusForbidden, Code: "AccessDenied"} // which nobody tries again
		}
		return stack.Fault{}
	})
}

// wantBytes reports a tenant of whose uploads S3 has another number of bytes, or that is charged another.
func (y *yard) wantBytes(t *testing.T, stored, charged int64) {
	t.Helper()
	stack.Want(t, y.Stored(t, y.ID), stored, "bytes in S3")
	stack.Want(t, y.Charged(t, y.ID), charged, "bytes charged")
	y.WantCount(t, int(y.Charged(t, y.ID)), `select coalesce(sum(charged_bytes), 0)::bigint from uploads where tenant_id = $1`, y.ID)
}

// Three batches are begun and cancelled, one after another: S3 has nothing of them when the cancellation is answered, and only
// then is their quota free.
func TestCancelledBatchesLeaveNothing(t *testing.T) {
	t.Parallel()
	y := newYard(t, 2*size)
	removing := make(chan chan struct{}) // each holds a removal
	y.proxy.Fault(func(kind string, _ int) stack.Fault {
		if kind != "AbortMultipartUpload" {
			return stack.Fault{}
		}
		return stack.Fault{Hold: func() {
			goOn := make(chan struct{})
			removing <- goOn
			<-goOn
		}}
	})
	for range 3 {
		id, uploads, err := y.batch(2)
		stack.Must(t, err)
		for _, u := range uploads {
			stack.Must(t, y.Patch(y.Ctx, u, hookstest.Body(content[:part]), nil))
		}
		y.wantBytes(t, 2*part, 2*size)
		ended := make(chan error, 1)
		go func() {
			_, err := y.batches.Cancel(y.manager, id)
			ended <- err
		}()
		for range 2 {
			goOn := stack.Receive(t, "removal", removing)
			charged := y.Charged(t, y.ID) // first: the other upload may be removed and refunded meanwhile
			if stored := y.Stored(t, y.ID); stored > charged || stored == 0 {
				t.Errorf("S3 has %d bytes and is about to remove some, and %d are charged", stored, charged)
			}
			close(goOn)
		}
		stack.Must(t, stack.Receive(t, "end of the cancellation", ended))
		y.wantBytes(t, 0, 0)
	}
}

// S3 removes nothing while batches are cancelled: they are cancelled, and stay charged for what S3 has, so that there can be no
// more bytes than the quota allows. Once S3 removes again, the reconciler frees the quota.
func TestCancelledBatchWithoutS3(t *testing.T) {
	t.Parallel()
	y := newYard(t, 3*size)
	y.refuseRemoval(true)
	for round := range 4 {
		id, uploads, err := y.batch(1)
		if round == 3 {
			stack.WantErr(t, err, hooks.ErrNoRoom)
			break
		}
		stack.Must(t, err)
		stack.Must(t, y.Patch(y.Ctx, uploads[0], hookstest.Body(content[:part]), nil))
		_, err = y.batches.Cancel(y.manager, id)
		stack.Must(t, err)
		stack.Want(t, y.Upload(t, y.Ctx, uploads[0]).Status, storage.Cancelled, "status")
		y.wantBytes(t, int64(round+1)*part, int64(round+1)*size)
	}
	for _, f := range y.Reconcile(t) {
		if f.Kind != reconcile.EndedUpload || f.Outcome != reconcile.Failed {
			t.Errorf("%s was %s: %v", f.Kind, f.Outcome, f.Reason)
		}
	}
	y.wantBytes(t, 3*part, 3*size)
	y.refuseRemoval(false)
	if found := y.Reconcile(t); len(found) != 3 {
		t.Errorf("found %v", kindsOf(found))
	}
	y.wantBytes(t, 0, 0)
	stack.Want(t, len(y.Reconcile(t)), 0, "findings of another pass")
}

// An upload of which no byte has come holds nothing in S3, and is refunded while S3 is away.
func TestRefundOfNothingNeedsNoS3(t *testing.T) {
	t.Parallel()
	y := newYard(t, 4*size)
	id, _, err := y.batch(2)
	stack.Must(t, err)
	single := y.Post(t, y.Ctx, hooks.Request{Size: size})
	y.proxy.Fault(func(string, int) stack.Fault { return stack.Fault{Cut: true} })
	_, err = y.batches.Cancel(y.manager, id)
	stack.Must(t, err)
	stack.Must(t, y.Terminate(y.Ctx, single))
	stack.Want(t, y.Charged(t, y.ID), 0, "bytes charged")
}

// A PATCH runs while its upload is deleted, or its batch is cancelled: the PATCH ends, what it has stored goes, and only then
// is the quota free.
func TestCancelBesideARunningPatch(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*yard, uuid.UUID, uuid.UUID) error{
		"DELETE": func(y *yard, _, upload uuid.UUID) error { return y.Terminate(y.Ctx, upload) },
		"batch": func(y *yard, id, _ uuid.UUID) error {
			_, err := y.batches.Cancel(y.manager, id)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t, size)
			id, uploads, err := y.batch(1)
			stack.Must(t, err)
			body := newSlow(content[:part])
			patch := make(chan error, 1)
			go func() { patch <- y.patchUntilWanted(uploads[0], body) }()
			stack.Until(t, "a part is in S3", func() bool { return y.Stored(t, y.ID) == part })
			stack.Must(t, end(y, id, uploads[0]))
			y.wantBytes(t, 0, 0)
			if err := stack.Receive(t, "end of the PATCH", patch); err != nil && !errors.Is(err, object.ErrTakenOver) {
				t.Errorf("the PATCH: %v", err)
			}
			y.wantBytes(t, 0, 0)
		})
	}
}

// A slow body brings some bytes, and then nothing until it is cut.
type slow struct {
	hookstest.Whole
	cut chan struct{}
}

func newSlow(content []byte) *slow { return &slow{hookstest.Body(content), make(chan struct{})} }

func (b *slow) Read(p []byte) (int, error) {
	if b.Len() == 0 {
		<-b.cut
	}
	return b.Whole.Read(p)
}

func (*slow) Ended() bool { return false }

// patchUntilWanted is a PATCH whose body is cut when another request wants the upload.
func (y *yard) patchUntilWanted(id uuid.UUID, body *slow) error {
	var once bool
	u, err := y.Uploads.Open(y.Ctx, id, stack.Patience, func() {
		if !once {
			once = true
			close(body.cut)
		}
	})
	if err != nil {
		return err
	}
	defer u.Close(y.Ctx)
	_, err = u.Write(y.Ctx, 0, body, nil)
	return err
}

// A server died after S3 had removed an upload and before it was refunded: it stays charged, which is no drift, and the
// reconciler refunds it, once.
func TestKilledBetweenRemovalAndRefund(t *testing.T) {
	t.Parallel()
	y := newYard(t, size)
	id, multipart := y.begun(t)
	y.Must(t, y.Ctx, func(tx storage.Tx) error { return tx.Move(y.Ctx, id, storage.Transition{Move: storage.MoveCancel}) })
	key := y.Keys(id).Original(y.fence(t, id))
	stack.Must(t, y.Bucket.RemoveUnfinished(t.Context(), y.Keys(id), &key, &multipart))
	y.wantBytes(t, 0, size)
	stack.Want(t, kindsOf(y.Reconcile(t)), []reconcile.Kind{reconcile.EndedUpload}, "findings")
	y.wantBytes(t, 0, 0)
	stack.Want(t, len(y.Reconcile(t)), 0, "findings of another pass")
}

// begun is an upload of which a part is in S3.
func (y *yard) begun(t *testing.T) (id uuid.UUID, multipart string) {
	t.Helper()
	id = y.Post(t, y.Ctx, hooks.Request{Size: size})
	stack.Must(t, y.Patch(y.Ctx, id, hookstest.Body(content[:part]), nil))
	for m, err := range y.Bucket.Multiparts(t.Context()) {
		stack.Must(t, err)
		multipart = m.MultipartID
	}
	return id, multipart
}

func (y *yard) fence(t *testing.T, id uuid.UUID) int64 {
	t.Helper()
	return int64(y.Count(t, `select substring(object_key from 'original-(\d+)$')::bigint from contents where upload_id = $1`, id))
}

// The quota is what the uploads come to, in both directions, also while ended ones are still charged.
func TestQuotaDriftKnowsEndedUploads(t *testing.T) {
	t.Parallel()
	for _, wrong := range []int64{-1, 1} {
		y := newYard(t, 4*size)
		y.refuseRemoval(true)
		id, _ := y.begun(t)
		stack.Must(t, y.Terminate(y.Ctx, id))
		y.Exec(t, `update tenants set charged_bytes = charged_bytes + $2 where id = $1`, y.ID, wrong)
		stack.Want(t, kindsOf(y.Reconcile(t)), []reconcile.Kind{reconcile.EndedUpload, reconcile.QuotaDrift}, "findings")
		y.wantBytes(t, part, size)
		y.refuseRemoval(false)
	}
}

// S3 removes nothing when an upload expires: it has expired, and is charged until S3 has nothing more of it.
func TestExpiryWithoutS3(t *testing.T) {
	t.Parallel()
	y := newYard(t, size)
	id, _ := y.begun(t)
	y.Exec(t, `update contents set touched_at = now() - interval '2 hours' where upload_id = $1`, id)
	y.refuseRemoval(true)
	stack.Want(t, kindsOf(y.Reconcile(t)), []reconcile.Kind{reconcile.EndedUpload, reconcile.IdleUpload}, "findings")
	stack.Want(t, y.Upload(t, y.Ctx, id).Status, storage.Expired, "status")
	y.wantBytes(t, part, size)
	y.refuseRemoval(false)
	stack.Want(t, kindsOf(y.Reconcile(t)), []reconcile.Kind{reconcile.EndedUpload}, "findings")
	y.wantBytes(t, 0, 0)
}

// S3 keeps the objects of partial uploads when their final one has their bytes: both are charged until they are gone.
func TestConcatenationWithoutRemoval(t *testing.T) {
	t.Parallel()
	y := newYard(t, 2*part)
	var partials []string
	for range 2 {
		id := y.Post(t, y.Ctx, hooks.Request{Size: part, Partial: true})
		stack.Must(t, y.Patch(y.Ctx, id, hookstest.Body(content[:part]), nil))
		partials = append(partials, id.String())
	}
	y.refuseRemoval(true)
	final := y.Post(t, y.Ctx, hooks.Request{Partials: partials})
	stack.Must(t, y.Uploads.Concatenate(y.Ctx, final, stack.Patience))
	y.wantBytes(t, 4*part, 4*part)
	y.refuseRemoval(false)
	stack.Want(t, kindsOf(y.Reconcile(t)), []reconcile.Kind{reconcile.EndedUpload, reconcile.EndedUpload}, "findings")
	y.wantBytes(t, 2*part, 2*part)
	stack.Want(t, y.Upload(t, y.Ctx, final).Status, storage.Uploaded, "status of the final upload")
}

// A file is not what its sender announced, and S3 keeps it for now: it is charged until it is gone, also if its sender deletes it.
func TestRejectionWithoutS3(t *testing.T) {
	t.Parallel()
	y := newYard(t, size)
	id := y.Post(t, y.Ctx, hooks.Request{Size: part, Metadata: map[string]string{"sha256": strings.Repeat("f", 64)}})
	y.refuseRemoval(true)
	stack.WantErr(t, y.Patch(y.Ctx, id, hookstest.Body(content[:part]), nil), hooks.ErrChecksumMismatch)
	y.wantBytes(t, part, part)
	stack.Must(t, y.Terminate(y.Ctx, id))
	y.wantBytes(t, part, part)
	y.refuseRemoval(false)
	r := y.Reconciler(t, prometheus.NewRegistry())
	r.StuckGrace = time.Hour
	stack.Want(t, len(hookstest.Findings(t, r, r.Reconcile)), 0, "findings within the grace, in which its request may do it")
	stack.Want(t, kindsOf(y.Reconcile(t)), []reconcile.Kind{reconcile.EndedUpload}, "findings")
	y.wantBytes(t, 0, 0)
}
