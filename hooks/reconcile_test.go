package hooks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A yard is a site with a bucket of its own, where things are in disorder, and a reconciler that waits for nothing.
type yard struct {
	*site
	ctx      context.Context //nolint:containedctx // acts for the tenant, for as long as the test runs
	tenant   uuid.UUID
	name     string // of the bucket
	registry *prometheus.Registry
	r        *hooks.Reconciler
}

const quota = 100_000 // bytes

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{site: newSite(t), name: "yard-" + uuid.NewString(), registry: prometheus.NewRegistry()}
	_, err := shared.s3.Client("").CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &y.name})
	must(t, err)
	y.bucket, err = object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: shared.s3.Endpoint(), Name: y.name})
	must(t, err)
	y.finisher.Bucket = y.bucket
	y.ctx = y.NewTenant(t, quota)
	who, err := tenant.From(y.ctx)
	must(t, err)
	y.tenant = who.Tenant
	y.r = y.reconciler(t, y.registry)
	return y
}

// reconciler makes one more, as another process would have it.
func (y *yard) reconciler(t *testing.T, registry *prometheus.Registry) *hooks.Reconciler {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := queue.New(y.Worker, log)
	must(t, err)
	metrics := hooks.NewMetrics(registry)
	finisher := &hooks.Finisher{DB: y.Worker, Queue: q, Bucket: y.bucket, Metrics: metrics, Log: log}
	store, err := object.NewStore(y.Worker, y.bucket, finisher, finisher, object.DefaultConfig(), object.NewMetrics(registry, y.bucket), log)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return &hooks.Reconciler{
		ReconcilerConfig: hooks.ReconcilerConfig{Expiry: time.Hour},
		DB:               y.Worker, Bucket: y.bucket, Queue: q, Uploads: metrics, Log: log,
		Store:   store,
		Locker:  object.Locker{Leases: lease.NewManager(y.Worker, "reconciler", 5*time.Second, log), Log: log},
		Metrics: hooks.NewReconcilerMetrics(registry),
	}
}

// reconcile makes both passes and returns what they found.
func (y *yard) reconcile(t *testing.T) []hooks.Result {
	t.Helper()
	return y.reconcileWith(t, y.r, func(ctx context.Context) error {
		return errors.Join(y.r.Reconcile(ctx), y.r.TakeInventory(ctx))
	})
}

func (y *yard) reconcileWith(t *testing.T, r *hooks.Reconciler, passes func(context.Context) error) (found []hooks.Result) {
	t.Helper()
	var mu sync.Mutex
	r.Report = func(res hooks.Result) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, res)
	}
	if r.DryRun {
		must(t, passes(t.Context()))
		return found
	}
	must(t, r.Locker.Leases.During(t.Context(), passes))
	return found
}

// admit makes an upload of ten bytes of which nothing has come.
func (y *yard) admit(t *testing.T) uuid.UUID {
	t.Helper()
	a, err := y.admission.Admit(y.ctx, hooks.Request{Size: 10})
	must(t, err)
	return a.ID
}

var content = []byte("0123456789")

// finish makes an upload that has all its bytes, and its job.
func (y *yard) finish(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	id = y.admit(t)
	key, sum := y.store(t, y.ctx, id, content)
	y.exec(t, `update contents set received = 10, stored = true, object_key = $2 where upload_id = $1`, id, key)
	must(t, y.finisher.Finish(y.ctx, id, key, sum))
	return id, key
}

// complete makes an upload that has gone all the way, with a picture.
func (y *yard) complete(t *testing.T) (id uuid.UUID, original, picture string) {
	t.Helper()
	id, original = y.finish(t)
	picture = y.keys(id).Thumbnail(160)
	y.put(t, picture)
	y.exec(t, `update river_job set state = 'completed', finalized_at = now() where args->>'upload_id' = $1`, id.String())
	must(t, y.Worker.InTenant(y.ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(y.ctx, id, 1); err != nil {
			return err
		}
		return tx.Complete(y.ctx, id, storage.Results{Thumbnails: []storage.Thumbnail{
			{Size: 160, WidthPx: 1, HeightPx: 1, Bytes: 1, ContentType: "image/webp", ObjectKey: picture},
		}})
	}))
	return id, original, picture
}

// begin makes an upload of which a part is in S3.
func (y *yard) begin(t *testing.T) (id uuid.UUID, multipart string) {
	t.Helper()
	id = y.admit(t)
	key := y.keys(id).Original(1)
	multipart, etag := y.multipart(t, key, content[:5])
	y.exec(t, `insert into parts (tenant_id, upload_id, number, size, etag) values ($1, $2, 1, 5, $3)`, y.tenant, id, etag)
	y.exec(t, `update contents set received = 5, object_key = $2, multipart_id = $3, next_part = 2 where upload_id = $1`, id, key, multipart)
	y.exec(t, `update uploads set status = 'uploading' where id = $1`, id)
	return id, multipart
}

// neighbours are uploads of every state with which all is well. Nothing may happen to them.
func (y *yard) neighbours(t *testing.T) {
	t.Helper()
	y.admit(t)
	y.begin(t)
	y.finish(t)
	y.complete(t)
	must(t, y.finisher.Cancel(y.ctx, y.admit(t)))
	id, _ := y.finish(t) // whose picture is being drawn
	must(t, y.Worker.InTenant(y.ctx, func(tx storage.Tx) error { return tx.MarkProcessing(y.ctx, id, 1) }))
	y.put(t, y.keys(id).Thumbnail(480))
	y.deadJob(t) // that is tried once more
	y.exec(t, `insert into river_job (kind, queue, state, max_attempts, args) select kind, queue, 'available', 3, args from river_job
		where state = 'discarded'`)
	id, key := y.finish(t) // whose object is kept all the same
	must(t, y.Worker.InTenant(y.ctx, func(tx storage.Tx) error {
		return tx.Fail(y.ctx, id, storage.Failure{Reason: storage.ReasonInfected, Detail: "EICAR"})
	}))
	must(t, y.bucket.Tag(y.ctx, key, "scan", storage.ReasonInfected))
}

func (y *yard) keys(id uuid.UUID) object.Keys {
	return object.Keys{Tenant: y.tenant, Project: object.DefaultProject, Upload: id}
}

func (y *yard) put(t *testing.T, key string) {
	t.Helper()
	must(t, y.bucket.Put(y.ctx, key, "application/octet-stream", bytes.NewReader(content), int64(len(content))))
}

// multipart begins a multipart upload with one part.
func (y *yard) multipart(t *testing.T, key string, part []byte) (id, etag string) {
	t.Helper()
	client := shared.s3.Client("")
	begun, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &y.name, Key: &key})
	must(t, err)
	out, err := client.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &y.name, Key: &key, UploadId: begun.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(part),
	})
	must(t, err)
	return *begun.UploadId, *out.ETag
}

func (y *yard) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := y.Worker.Pool().Exec(t.Context(), sql, args...)
	must(t, err)
}

func (y *yard) wantObject(t *testing.T, key string, there bool) {
	t.Helper()
	_, err := y.bucket.Size(t.Context(), key)
	if there {
		must(t, err)
		return
	}
	wantErr(t, err, object.ErrNoObject)
}

// s3 lists all that the bucket holds.
func (y *yard) s3(t *testing.T) (all []string) {
	t.Helper()
	for o, err := range y.bucket.Objects(t.Context()) {
		must(t, err)
		all = append(all, o.Key+" "+o.Since.String())
	}
	for m, err := range y.bucket.Multiparts(t.Context()) {
		must(t, err)
		all = append(all, m.Key+" "+m.MultipartID)
	}
	return all
}

func (y *yard) metric(t *testing.T, name string, kind hooks.Kind) (n int) {
	t.Helper()
	families, err := y.registry.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == string(kind) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	t.Errorf("%s{kind=%q} is not told", name, kind)
	return 0
}

// A planted disorder says what is found of it and what must be true once it is repaired.
type planted struct {
	upload   uuid.UUID
	key      string
	repaired func(t *testing.T)
}

// disorders plant one of each kind.
func (y *yard) disorders() map[hooks.Kind]func(t *testing.T) planted {
	return map[hooks.Kind]func(t *testing.T) planted{
		hooks.KindFinishCutOff:     y.cutOff,
		hooks.KindExpired:          y.idle,
		hooks.KindMissingJob:       y.withoutJob,
		hooks.KindDeadJob:          y.deadJob,
		hooks.KindUnownedTail:      y.orphanTail,
		hooks.KindUnownedMultipart: y.orphanMultipart,
		hooks.KindUnownedObject:    y.orphanObject,
		hooks.KindUnknownMultipart: y.unknownMultipart,
		hooks.KindUnknownObject:    y.unknownObject,
		hooks.KindLostObject:       y.lostObject,
		hooks.KindLostDerivative:   y.lostDerivative,
		hooks.KindQuotaDrift:       y.drift,
	}
}

// The server died after the last part was recorded and before the multipart upload was completed.
func (y *yard) cutOff(t *testing.T) planted {
	id, _ := y.begin(t)
	key := y.keys(id).Original(7)
	multipart, etag := y.multipart(t, key, content)
	sum := sha256.New()
	sum.Write(content)
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	must(t, err)
	y.exec(t, `update parts set size = 10, etag = $2 where upload_id = $1`, id, etag)
	y.exec(t, `update contents set received = 10, object_key = $2, multipart_id = $3, hash_state = $4 where upload_id = $1`, id, key, multipart, state)
	must(t, y.abortAllBut(t, id, multipart))
	return planted{upload: id, repaired: func(t *testing.T) {
		u := y.upload(t, y.ctx, id)
		if u.Status != storage.Uploaded || *u.ObjectKey != key || !bytes.Equal(u.SHA256, sum.Sum(nil)) {
			t.Errorf("got %+v", u)
		}
		y.wantObject(t, key, true)
		if n := y.count(t, jobsOf, id.String()); n != 1 {
			t.Errorf("there are %d jobs", n)
		}
	}}
}

func (y *yard) abortAllBut(t *testing.T, id uuid.UUID, multipart string) error {
	for m, err := range y.bucket.Multiparts(t.Context()) {
		if err != nil {
			return err
		}
		if strings.Contains(m.Key, id.String()) && m.MultipartID != multipart {
			if err := y.bucket.Abort(t.Context(), m.Key, m.MultipartID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (y *yard) idle(t *testing.T) planted {
	id, _ := y.begin(t)
	y.exec(t, `update contents set touched_at = now() - interval '61 minutes', received = 8, tail_size = 3 where upload_id = $1`, id)
	y.exec(t, `insert into tails values ($1, $2, 5, '567')`, y.tenant, id)
	room := y.room(t, y.ctx)
	return planted{upload: id, repaired: func(t *testing.T) {
		if u := y.upload(t, y.ctx, id); u.Status != storage.Expired {
			t.Errorf("got %+v", u)
		}
		if n := y.count(t, `select count(*) from timeline where upload_id = $1 and event = 'expired'`, id); n != 1 {
			t.Errorf("the timeline says %d times that it expired", n)
		}
		if got := y.room(t, y.ctx); got != room+10 {
			t.Errorf("%d bytes are left, not %d", got, room+10)
		}
		if n := y.count(t, `select count(*) from tails where upload_id = $1`, id); n != 0 {
			t.Errorf("%d tails are left", n)
		}
		for _, left := range y.s3(t) {
			if strings.Contains(left, id.String()) {
				t.Errorf("S3 still has %s", left)
			}
		}
	}}
}

func (y *yard) withoutJob(t *testing.T) planted {
	id, _ := y.finish(t)
	y.exec(t, `delete from river_job where args->>'upload_id' = $1`, id.String())
	return planted{upload: id, repaired: func(t *testing.T) {
		if n := y.count(t, jobsOf, id.String()); n != 1 {
			t.Errorf("there are %d jobs", n)
		}
	}}
}

// The worker was killed on the last attempt, and River gave the job up.
func (y *yard) deadJob(t *testing.T) planted {
	id, key := y.finish(t)
	must(t, y.Worker.InTenant(y.ctx, func(tx storage.Tx) error { return tx.MarkProcessing(y.ctx, id, 1) }))
	y.exec(t, `update river_job set state = 'discarded', attempt = 3, finalized_at = now() where args->>'upload_id' = $1`, id.String())
	return planted{upload: id, repaired: func(t *testing.T) {
		if u := y.upload(t, y.ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonDeadLettered {
			t.Errorf("got %+v", u)
		}
		if d := y.letterOf(t, y.ctx, id); d.State != deadletter.Open || d.Step != "scan" || d.Attempts != 3 {
			t.Errorf("got %+v", d)
		}
		y.wantObject(t, key, true)
	}}
}

// A part holds bytes that a tail holds as well.
func (y *yard) orphanTail(t *testing.T) planted {
	id, _ := y.begin(t)
	y.exec(t, `insert into tails values ($1, $2, 3, '34'), ($1, $2, 5, '56')`, y.tenant, id)
	y.exec(t, `update contents set received = 7, tail_size = 2 where upload_id = $1`, id)
	return planted{upload: id, repaired: func(t *testing.T) {
		if n := y.count(t, `select sum(start)::int from tails where upload_id = $1`, id); n != 5 {
			t.Errorf("the wrong tails are left: %d", n)
		}
	}}
}

// The server died while it cancelled.
func (y *yard) orphanMultipart(t *testing.T) planted {
	id, multipart := y.begin(t)
	must(t, y.finisher.Cancel(y.ctx, id))
	return planted{upload: id, key: y.keys(id).Original(1), repaired: func(t *testing.T) {
		if slices.ContainsFunc(y.s3(t), func(s string) bool { return strings.Contains(s, multipart) }) {
			t.Error("the multipart upload is still there")
		}
	}}
}

// A holder that had frozen wrote the whole object when another had already.
func (y *yard) orphanObject(t *testing.T) planted {
	id, mine := y.finish(t)
	late := y.keys(id).Original(99)
	y.put(t, late)
	return planted{upload: id, key: late, repaired: func(t *testing.T) {
		y.wantObject(t, late, false)
		y.wantObject(t, mine, true)
	}}
}

func (y *yard) unknownObject(t *testing.T) planted {
	id := uuid.Must(uuid.NewV7())
	key := y.keys(id).Original(3)
	y.put(t, key)
	return planted{key: key}
}

func (y *yard) unknownMultipart(t *testing.T) planted {
	key := y.keys(uuid.Must(uuid.NewV7())).Original(3)
	y.multipart(t, key, content)
	return planted{key: key}
}

func (y *yard) lostObject(t *testing.T) planted {
	id, original, _ := y.complete(t)
	must(t, y.bucket.Delete(y.ctx, original))
	room := y.room(t, y.ctx)
	return planted{upload: id, key: original, repaired: func(t *testing.T) {
		if u := y.upload(t, y.ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonLost {
			t.Errorf("got %+v", u)
		}
		if got := y.room(t, y.ctx); got != room+10 {
			t.Errorf("%d bytes are left, not %d", got, room+10)
		}
	}}
}

func (y *yard) lostDerivative(t *testing.T) planted {
	id, _, picture := y.complete(t)
	must(t, y.bucket.Delete(y.ctx, picture))
	return planted{upload: id, key: picture}
}

func (y *yard) drift(t *testing.T) planted {
	room := y.room(t, y.ctx)
	y.exec(t, `update tenants set charged_bytes = charged_bytes + 70`)
	return planted{repaired: func(t *testing.T) {
		if got := y.room(t, y.ctx); got != room {
			t.Errorf("%d bytes are left, not %d", got, room)
		}
	}}
}

// Each kind is planted among uploads with which all is well: it is found, nothing else is, it is repaired and counted, the
// timeline tells of it, and another pass finds nothing.
func TestReconcileEachKind(t *testing.T) {
	t.Parallel()
	for _, kind := range new(hooks.Reconciler).Kinds(t.Context()) {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			y := newYard(t)
			y.neighbours(t)
			p := y.disorders()[kind](t)
			found := y.reconcile(t)
			if len(found) != 1 || found[0].Kind != kind || p.key != "" && found[0].Key != p.key || p.upload != uuid.Nil && found[0].Upload != p.upload {
				t.Fatalf("found %+v, want %s of %s %s", found, kind, p.upload, p.key)
			}
			if p.repaired == nil {
				y.checkLeft(t, found[0], p)
				return
			}
			if found[0].Outcome != hooks.Repaired {
				t.Errorf("it was %s: %v", found[0].Outcome, found[0].Reason)
			}
			p.repaired(t)
			if again := y.reconcile(t); len(again) != 0 {
				t.Errorf("a second pass found %+v", again)
			}
			y.checkCounted(t, kind, 1, 1)
			entries := y.count(t, `select count(*) from timeline where event = 'repaired' and detail = jsonb_build_object('kind', $1::text)
				and upload_id = $2`, kind, p.upload)
			if p.upload != uuid.Nil && entries != 1 {
				t.Errorf("the timeline tells of it %d times", entries)
			}
		})
	}
}

func (y *yard) checkLeft(t *testing.T, found hooks.Result, p planted) {
	t.Helper()
	if found.Outcome != hooks.Left || found.Reason == nil {
		t.Errorf("it was %s: %v", found.Outcome, found.Reason)
	}
	if found.Kind == hooks.KindUnknownObject {
		y.wantObject(t, p.key, true)
	}
	if again := y.reconcile(t); len(again) != 1 {
		t.Errorf("a second pass found %+v", again)
	}
	y.checkCounted(t, found.Kind, 2, 0)
	if n := y.metric(t, "tramo_reconcile_unrepaired", found.Kind); n != 1 {
		t.Errorf("%d are unrepaired", n)
	}
}

func (y *yard) checkCounted(t *testing.T, kind hooks.Kind, found, repaired int) {
	t.Helper()
	if f, r, x := y.metric(t, "tramo_reconcile_found_total", kind), y.metric(t, "tramo_reconcile_repaired_total", kind),
		y.metric(t, "tramo_reconcile_failed_total", kind); f != found || r != repaired || x != 0 {
		t.Errorf("counted: %d found, %d repaired, %d failed", f, r, x)
	}
}
