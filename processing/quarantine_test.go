package processing

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// places are the keys of all that S3 has of an upload, in quarantine first.
func (p *fixture) places(t *testing.T, id uuid.UUID) (keys []string) {
	t.Helper()
	for _, prefix := range []string{"quarantine/" + p.keysOf(id).Prefix(), p.keysOf(id).Prefix()} {
		listed, err := stack.Get(t, ground.S3).Client("").ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
			Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Prefix: &prefix,
		})
		stack.Must(t, err)
		for _, o := range listed.Contents {
			keys = append(keys, *o.Key)
		}
	}
	return keys
}

// wantPlace checks that the row names one object of the upload, that this is in quarantine or not, has the bytes that were
// received, and the tag scan, "" for none.
func (p *fixture) wantPlace(t *testing.T, id uuid.UUID, quarantined bool, tag string) (key string) {
	t.Helper()
	var size int64
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `select object_key, size from uploads where id = $1`, id).Scan(&key, &size))
	stack.Want(t, object.IsQuarantined(key), quarantined, "%s is a key in quarantine", key)
	if got, err := p.pipeline.Bucket.Size(t.Context(), key); err != nil || got != size {
		t.Errorf("the object has %d bytes of %d: %v", got, size, err)
	}
	tags, err := stack.Get(t, ground.S3).Client("").GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{
		Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: &key,
	})
	stack.Must(t, err)
	var found []string
	for _, tag := range tags.TagSet {
		found = append(found, *tag.Key+"="+*tag.Value)
	}
	want := ""
	if tag != "" {
		want = "scan=" + tag
	}
	stack.Want(t, strings.Join(found, " "), want, "tags of the object")
	return key
}

// wantOnly checks that S3 has that object of the upload, so many thumbnails, and nothing else.
func (p *fixture) wantOnly(t *testing.T, id uuid.UUID, key string, thumbnails int) {
	t.Helper()
	originals := 0
	for _, k := range p.places(t, id) {
		switch {
		case k == key:
			originals++
		case p.keysOf(id).IsThumbnail(k):
			thumbnails--
		default:
			t.Errorf("S3 has %s", k)
		}
	}
	if originals != 1 || thumbnails != 0 {
		t.Errorf("S3 has %d of the object, and %d thumbnails less than it should: %q", originals, thumbnails, p.places(t, id))
	}
}

// scanned returns the row of the upload's scan: verdict, signature, and whether it was released; "" without one.
func (p *fixture) scanned(t *testing.T, id uuid.UUID) (row string) {
	t.Helper()
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `
		select coalesce(max(concat_ws(' ', verdict, signature, case when released_by is not null then 'released' end)), '')
		from scans where upload_id = $1`, id).Scan(&row))
	return row
}

// wantScan reports an upload whose scan has another row, see scanned.
func (p *fixture) wantScan(t *testing.T, id uuid.UUID, want string) {
	t.Helper()
	stack.Want(t, p.scanned(t, id), want, "scan")
}

// release does what an admin does.
func (p *fixture) release(t *testing.T, id uuid.UUID) {
	t.Helper()
	who, err := tenant.From(p.ctx)
	stack.Must(t, err)
	who.Role = tenant.Admin
	service := &quarantine.Service{DB: p.API, Queue: p.queue, Log: p.pipeline.Log}
	stack.Must(t, service.Release(tenant.With(p.ctx, who), id, "a false alarm"))
}

// idle is that no job has anything left to do.
const idle = `select not exists (select from river_job where state <> 'completed')`

// A clean upload's scan is kept as well, and that of one that fails for another reason.
func TestVerdictsAreKept(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	clean := p.receive(t, smallPhoto(), smallPhoto(), 1)
	text := []byte(strings.Repeat("#!/bin/sh\necho hola\n", 10))
	refused := p.receive(t, text, text, 1)
	p.Exec(t, `update uploads set declared_type = 'image/jpeg' where id = $1`, refused)
	p.run(t)
	p.await(t, idle)
	p.want(t, clean, storage.Completed, "", len(thumbnailSizes), 1)
	p.wantScan(t, clean, "clean")
	p.want(t, refused, storage.Failed, storage.ReasonTypeMismatch, 0, 1)
	p.wantScan(t, refused, "clean")
	p.wantPlace(t, refused, false, "")
	p.WantCount(t, 2, `select count(*) from scans where engine like 'ClamAV %' and scanned_at > now() - interval '1 hour'`)
}

// An admin lets an infected photo out of quarantine: it is back at a place of its own, untagged, and completed with
// thumbnails, though clamd says the same again. Both places had one object, at the end S3 has one.
func TestRelease(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	p.run(t)
	p.await(t, idle)
	first := p.wantPlace(t, id, true, "infected")
	p.wantOnly(t, id, first, 0)
	p.wantScan(t, id, "infected Tramo-Photo-HDB.UNOFFICIAL")
	p.release(t, id)
	p.await(t, idle)
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 2)
	p.wantOnly(t, id, p.wantPlace(t, id, false, ""), len(thumbnailSizes))
	p.wantScan(t, id, "infected Tramo-Photo-HDB.UNOFFICIAL released")
}

// What was released was released from one signature: another that is found then has it quarantined again.
func TestReleaseIsOfOneSignature(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	p.run(t)
	p.await(t, idle)
	p.Exec(t, `update scans set signature = 'Something.Else'`)
	p.release(t, id)
	p.await(t, idle)
	p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 2)
	p.wantOnly(t, id, p.wantPlace(t, id, true, "infected"), 0)
}

// S3 fails, or the transaction does, between any two steps of the move into quarantine and out of it: the upload ends in
// one state all the same, with one object that the row names. What else there is nobody names, and nothing was lost.
func TestMoveIsCutOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind string // of the request to S3 that fails
		n    int    // which of them; 0 for the first
		left int    // objects that nobody names afterwards
	}{
		"before the copy":               {"CopyObject", 0, 0},
		"after the copy":                {"HeadObject", 0, 0},
		"while its tags are removed":    {"DeleteObjectTagging", 0, 0},
		"before it is tagged":           {"PutObjectTagging", 0, 0},
		"before the old one is deleted": {"DeleteObject", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			proxy := p.proxied(t)
			fails := func() {
				armed := true
				proxy.Fault(func(kind string, _ int) stack.Fault {
					if kind != c.kind || !armed {
						return stack.Fault{}
					}
					armed = false
					return stack.Fault{Status: 400, Code: "InvalidRequest"} // which the SDK does not repeat
				})
			}
			id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
			fails()
			p.run(t)
			p.await(t, idle)
			p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
			p.wantPlace(t, id, true, "infected")
			stack.Want(t, len(p.places(t, id)), 1+c.left, "number of places in S3 (%q)", p.places(t, id))
			fails()
			p.release(t, id)
			p.await(t, idle)
			p.want(t, id, storage.Completed, "", len(thumbnailSizes), 2)
			key := p.wantPlace(t, id, false, "")
			body, _, err := p.pipeline.Bucket.Get(t.Context(), key)
			stack.Must(t, err)
			defer body.Close()
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, infectedPhoto()) {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
		})
	}
}

// A store says that it does not have an operation that a move into quarantine uses, or answers with nothing: the move does
// without it, once, and the circuit stays closed.
func TestMoveInStoresThatLackSomething(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lacks map[string]stack.Fault
		tag   string
	}{
		"no copies":    {map[string]stack.Fault{"CopyObject": stack.NotImplemented}, "infected"},
		"empty copies": {map[string]stack.Fault{"CopyObject": stack.EmptyAnswer}, "infected"},
		"no tags":      {map[string]stack.Fault{"PutObjectTagging": stack.NotImplemented, "DeleteObjectTagging": stack.NotImplemented}, ""},
		"neither": {map[string]stack.Fault{
			"CopyObject": stack.NotImplemented, "PutObjectTagging": stack.NotImplemented, "DeleteObjectTagging": stack.NotImplemented,
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			p.proxied(t).Fault(func(kind string, _ int) stack.Fault { return c.lacks[kind] })
			id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
			p.run(t)
			p.await(t, idle)
			p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
			p.wantOnly(t, id, p.wantPlace(t, id, true, c.tag), 0)
			if p.pipeline.Bucket.Unavailable() {
				t.Error("what a store lacks counts as an outage")
			}
		})
	}
}

// A store that cannot be read at all is not waited for: the upload becomes a dead letter that names the operation.
func TestStoreWithoutReads(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.proxied(t).Fault(func(kind string, _ int) stack.Fault {
		return map[string]stack.Fault{"GetObject": stack.NotImplemented}[kind]
	})
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.run(t)
	p.await(t, `select exists (select from dead_letters where error like '%GetObject%not supported by this S3 store%')`)
	p.WantCount(t, 1, `select count(*) from uploads where id = $1 and status = 'failed'`, id)
}

// S3 fails at the last request before the rows know of a move, again and again: no copy stays behind.
func TestMoveIsRepeated(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	failed := 0
	proxy := p.proxied(t)
	proxy.Fault(func(kind string, _ int) stack.Fault {
		if kind != "PutObjectTagging" || failed == 3 {
			return stack.Fault{}
		}
		failed++
		return stack.Fault{Status: 400, Code: "InvalidRequest"}
	})
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	p.run(t)
	p.await(t, idle)
	p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
	p.wantOnly(t, id, p.wantPlace(t, id, true, "infected"), 0)
}

// An attempt that lost its lease after it copied the object, because its worker froze, changes nothing.
func TestMoveWithoutTheLease(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	proxy := p.proxied(t)
	lost := false
	proxy.Fault(func(kind string, _ int) stack.Fault {
		if kind == "PutObjectTagging" && !lost {
			lost = true
			if _, err := p.Worker.Pool().Exec(t.Context(), `delete from upload_leases`); err != nil {
				t.Error(err)
			}
		}
		return stack.Fault{}
	})
	p.run(t)
	p.await(t, idle)
	p.job(t, 2, 1)
	p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
	if got := p.places(t, id); len(got) != 2 { // and the copy of the first attempt
		t.Errorf("S3 has %q", got)
	}
}

// rescan asks for it as tramo rescan does.
func (p *fixture) rescan(t *testing.T, ids ...uuid.UUID) {
	t.Helper()
	stack.Must(t, p.Worker.InTenant(p.ctx, func(tx storage.Tx) error { return p.queue.EnqueueRescans(p.ctx, tx, ids...) }))
}

// A photo was clean, and is completed in a batch that has ended. A signature comes that knows it: a rescan quarantines it,
// removes its thumbnails and their rows, fails the upload and the batch, announces that, and leaves other uploads alone. An
// admin's release brings all of it back, and the next rescan leaves it there.
func TestRescan(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	clamd, dir := startClamd(t)
	p.pipeline.Scanner = newScanner(t, clamd.Address())
	bad := stack.Photo(stack.PhotoConfig{Width: 320, Height: 240, Seed: 77})
	id, other := p.receive(t, bad, bad, 1), p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.Exec(t, `insert into batches (tenant_id, id, project, name, user_id) select tenant_id, id, project, 'x', 'ana' from uploads where id = '`+id.String()+`';
		update uploads set batch_id = id where id = '`+id.String()+`';
		insert into webhook_endpoints (tenant_id, id, url, user_id) select tenant_id, id, 'https://a.example/', 'ana' from uploads where id = '`+id.String()+`'`)
	p.run(t)
	p.await(t, idle)
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
	batch := func(failed bool) {
		t.Helper()
		p.WantCount(t, 1, `select count(*) from batches where completed_at is not null and failed = $1`, failed)
	}
	batch(false)

	late := stack.Signature("Late-Find", bad)
	stack.Must(t, os.WriteFile(filepath.Join(dir, "database", "late.hdb"), []byte(late), 0o600))
	stack.Must(t, clamd.Restart(t.Context()))
	p.rescan(t, id, other)
	p.await(t, idle)
	p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 2)
	p.want(t, other, storage.Completed, "", len(thumbnailSizes), 1)
	p.wantOnly(t, id, p.wantPlace(t, id, true, "infected"), 0)
	p.wantOnly(t, other, p.wantPlace(t, other, false, ""), len(thumbnailSizes))
	batch(true)
	for sql, want := range map[string]int{
		`select count(*) from audit where actor = 'rescan' and action = 'upload.quarantine' and detail->>'signature' = 'Late-Find.UNOFFICIAL'`: 1,
		`select count(*) from timeline where event = 'failed' and detail->>'rescan' = 'true'`:                                                  1,
		`select count(*) from announcements where type = 'upload.failed' and upload_id is not null`:                                            1,
		`select count(*) from announcements where type = 'batch.failed'`:                                                                       0, // it was told of as completed, once
		`select count(*) from uploads u join scans s on s.upload_id = u.id where verdict = 'clean' and scanned_at > completed_at`:              1,
		`select count(*) from uploads where completed_at is not null and status <> 'completed'`:                                                0,
		`select count(*) from river_job where kind = 'rescan_upload' and (queue <> 'rescan' or priority <> 4)`:                                 0,
	} {
		p.WantCount(t, want, sql)
	}

	p.release(t, id)
	p.await(t, idle)
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 3)
	p.wantOnly(t, id, p.wantPlace(t, id, false, ""), len(thumbnailSizes))
	batch(false)
	p.rescan(t, id)
	p.await(t, idle)
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 3)
	p.wantOnly(t, id, p.wantPlace(t, id, false, ""), len(thumbnailSizes))
}

// A rescan that is cut off is tried again: the upload is completed and served until it is in quarantine.
func TestRescanIsCutOff(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"GetObject", "CopyObject", "PutObjectTagging", "DeleteObject"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			id := p.receive(t, infectedPhoto(), infectedPhoto(), 0)
			p.MustWork(t, p.ctx, func(tx storage.Tx) error {
				if err := tx.MarkProcessing(p.ctx, id, 1); err != nil {
					return err
				}
				return tx.Complete(p.ctx, id, storage.Results{DetectedType: "image/jpeg"})
			})
			proxy := p.proxied(t)
			status := make(chan string, 10)
			proxy.Fault(func(k string, n int) stack.Fault {
				if k != kind || len(status) > 0 {
					return stack.Fault{}
				}
				var s string
				if err := p.Worker.Pool().QueryRow(t.Context(), `select status from uploads`).Scan(&s); err != nil {
					t.Error(err)
				}
				status <- s
				return stack.Fault{Status: 400, Code: "InvalidRequest"}
			})
			p.rescan(t, id)
			p.run(t)
			p.await(t, idle)
			want := "completed"
			if kind == "DeleteObject" {
				want = "failed"
			}
			if got := stack.Receive(t, "request for "+kind, status); got != want { // the last step follows the job's end
				t.Errorf("meanwhile the upload is %s", got)
			}
			p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 2)
			p.wantPlace(t, id, true, "infected")
		})
	}
}

// Only what is completed is scanned again; what is not stays what it is.
func TestRescanOfOthers(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	waiting := p.receive(t, infectedPhoto(), infectedPhoto(), 0)
	gone := p.receive(t, infectedPhoto(), infectedPhoto(), 0)
	p.Exec(t, `update uploads set status = 'completed', completed_at = now(), deleted_at = now(), purge_at = now() + interval '1 day'
		where id = $1`, gone)
	p.rescan(t, waiting, gone, uuid.New())
	p.run(t)
	p.await(t, idle)
	p.WantCount(t, 2, `select count(*) from uploads where id = $1 and status = 'uploaded' or id = $2 and status = 'completed'`, waiting, gone)
	p.wantPlace(t, gone, false, "")
}
