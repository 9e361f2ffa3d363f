package processing

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
func (p *plant) places(t *testing.T, id uuid.UUID) (keys []string) {
	t.Helper()
	for _, prefix := range []string{"quarantine/" + p.keysOf(id).Prefix(), p.keysOf(id).Prefix()} {
		listed, err := stand(t).s3.Client("").ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
			Bucket: aws.String(stand(t).s3.Bucket()), Prefix: &prefix,
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
func (p *plant) wantPlace(t *testing.T, id uuid.UUID, quarantined bool, tag string) (key string) {
	t.Helper()
	var size int64
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `select object_key, size from uploads where id = $1`, id).Scan(&key, &size))
	if object.IsQuarantined(key) != quarantined {
		t.Errorf("the object is at %s", key)
	}
	if got, err := p.pipeline.Bucket.Size(t.Context(), key); err != nil || got != size {
		t.Errorf("the object has %d bytes of %d: %v", got, size, err)
	}
	tags, err := stand(t).s3.Client("").GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{
		Bucket: aws.String(stand(t).s3.Bucket()), Key: &key,
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
	if got := strings.Join(found, " "); got != want {
		t.Errorf("the object has the tags %q, want %q", got, want)
	}
	return key
}

// wantOnly checks that S3 has that object of the upload, so many thumbnails, and nothing else.
func (p *plant) wantOnly(t *testing.T, id uuid.UUID, key string, thumbnails int) {
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
func (p *plant) scanned(t *testing.T, id uuid.UUID) (row string) {
	t.Helper()
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `
		select coalesce(max(concat_ws(' ', verdict, signature, case when released_by is not null then 'released' end)), '')
		from scans where upload_id = $1`, id).Scan(&row))
	return row
}

// release does what an admin does.
func (p *plant) release(t *testing.T, id uuid.UUID) {
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
	p := newPlant(t)
	clean := p.receive(t, smallPhoto(), smallPhoto(), 1)
	text := []byte(strings.Repeat("#!/bin/sh\necho hola\n", 10))
	refused := p.receive(t, text, text, 1)
	p.exec(t, `update uploads set declared_type = 'image/jpeg' where id = '`+refused.String()+`'`)
	p.run(t)
	p.await(t, idle)
	p.want(t, clean, storage.Completed, "", len(thumbnailSizes), 1)
	if got := p.scanned(t, clean); got != "clean" {
		t.Errorf("the scan is %q", got)
	}
	p.want(t, refused, storage.Failed, storage.ReasonTypeMismatch, 0, 1)
	if got := p.scanned(t, refused); got != "clean" {
		t.Errorf("the scan is %q", got)
	}
	p.wantPlace(t, refused, false, "")
	if n := p.count(t, `select count(*) from scans where engine like 'ClamAV %' and scanned_at > now() - interval '1 hour'`); n != 2 {
		t.Errorf("of %d verdicts it is known who gave them, and when", n)
	}
}

// An admin lets an infected photo out of quarantine: it is back at a place of its own, untagged, and completed with
// thumbnails, though clamd says the same again. Both places had one object, at the end S3 has one.
func TestRelease(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	p.run(t)
	p.await(t, idle)
	first := p.wantPlace(t, id, true, "infected")
	p.wantOnly(t, id, first, 0)
	if got := p.scanned(t, id); got != "infected Tramo-Photo-HDB.UNOFFICIAL" {
		t.Errorf("the scan is %q", got)
	}
	p.release(t, id)
	p.await(t, idle)
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 2)
	p.wantOnly(t, id, p.wantPlace(t, id, false, ""), len(thumbnailSizes))
	if got := p.scanned(t, id); got != "infected Tramo-Photo-HDB.UNOFFICIAL released" {
		t.Errorf("the scan is %q", got)
	}
}

// What was released was released from one signature: another that is found then has it quarantined again.
func TestReleaseIsOfOneSignature(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	p.run(t)
	p.await(t, idle)
	p.exec(t, `update scans set signature = 'Something.Else'`)
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
		"after the copy":                {"HeadObject", 0, 1},
		"while its tags are removed":    {"DeleteObjectTagging", 0, 1},
		"before it is tagged":           {"PutObjectTagging", 0, 1},
		"before the old one is deleted": {"DeleteObject", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t)
			proxy, err := stack.NewS3Proxy(stand(t).s3.Endpoint())
			stack.Must(t, err)
			t.Cleanup(proxy.Stop)
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
			p.reach(t, proxy.Endpoint())
			id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
			fails()
			p.run(t)
			p.await(t, idle)
			p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
			p.wantPlace(t, id, true, "infected")
			if got := len(p.places(t, id)); got != 1+c.left {
				t.Errorf("S3 has %q", p.places(t, id))
			}
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

// An attempt that lost its lease after it copied the object, because its worker froze, changes nothing.
func TestMoveWithoutTheLease(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	proxy, err := stack.NewS3Proxy(stand(t).s3.Endpoint())
	stack.Must(t, err)
	t.Cleanup(proxy.Stop)
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
	p.reach(t, proxy.Endpoint())
	p.run(t)
	p.await(t, idle)
	p.job(t, 2, 1)
	p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
	if got := p.places(t, id); len(got) != 2 { // and the copy of the first attempt
		t.Errorf("S3 has %q", got)
	}
}

// learn gives clamd a new signature.
func learn(t *testing.T, c *stack.Clamd, dir, name string, content []byte) {
	t.Helper()
	line := fmt.Sprintf("%x:%d:%s\n", md5.Sum(content), len(content), name)
	stack.Must(t, os.WriteFile(filepath.Join(dir, name+".hdb"), []byte(line), 0o600))
	stack.Must(t, c.Restart(t.Context()))
}

// rescan asks for it as tramo rescan does.
func (p *plant) rescan(t *testing.T, ids ...uuid.UUID) {
	t.Helper()
	stack.Must(t, p.Worker.InTenant(p.ctx, func(tx storage.Tx) error { return p.queue.EnqueueRescans(p.ctx, tx, ids...) }))
}

// A photo was clean, and is completed in a batch that has ended. A signature comes that knows it: a rescan quarantines it,
// removes its thumbnails and their rows, fails the upload and the batch, announces that, and leaves other uploads alone. An
// admin's release brings all of it back, and the next rescan leaves it there.
func TestRescan(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	dir := t.TempDir()
	stack.Must(t, os.WriteFile(filepath.Join(dir, "eicar.hdb"), []byte("44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-HDB\n"), 0o600))
	clamd, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Dir: t.TempDir(), Database: dir})
	stack.Must(t, err)
	t.Cleanup(func() { _ = clamd.Stop() })
	p.pipeline.Scanner = newScanner(t, clamd.Address())
	bad := stack.Photo(stack.PhotoConfig{Width: 320, Height: 240, Seed: 77})
	id, other := p.receive(t, bad, bad, 1), p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.exec(t, `insert into batches (tenant_id, id, project, name, user_id) select tenant_id, id, project, 'x', 'ana' from uploads where id = '`+id.String()+`';
		update uploads set batch_id = id where id = '`+id.String()+`';
		insert into webhook_endpoints (tenant_id, id, url, user_id) select tenant_id, id, 'https://a.example/', 'ana' from uploads where id = '`+id.String()+`'`)
	p.run(t)
	p.await(t, idle)
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
	batch := func(failed bool) {
		t.Helper()
		if n := p.count(t, `select count(*) from batches where completed_at is not null and failed = $1`, failed); n != 1 {
			t.Errorf("the batch has not ended, or its failure is not %t", failed)
		}
	}
	batch(false)

	learn(t, clamd, dir, "Late-Find", bad)
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
		if n := p.count(t, sql); n != want {
			t.Errorf("%d, not %d: %s", n, want, sql)
		}
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
			p := newPlant(t)
			id := p.receive(t, infectedPhoto(), infectedPhoto(), 0)
			stack.Must(t, p.Worker.InTenant(p.ctx, func(tx storage.Tx) error {
				if err := tx.MarkProcessing(p.ctx, id, 1); err != nil {
					return err
				}
				return tx.Complete(p.ctx, id, storage.Results{DetectedType: "image/jpeg"})
			}))
			proxy, err := stack.NewS3Proxy(stand(t).s3.Endpoint())
			stack.Must(t, err)
			t.Cleanup(proxy.Stop)
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
			p.reach(t, proxy.Endpoint())
			p.rescan(t, id)
			p.run(t)
			p.await(t, idle)
			want := "completed"
			if kind == "DeleteObject" {
				want = "failed"
			}
			select {
			case got := <-status:
				if got != want {
					t.Errorf("meanwhile the upload is %s", got)
				}
			case <-time.After(30 * time.Second): // the last step follows the job's end
				t.Errorf("nobody asked S3 for %s", kind)
			}
			p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 2)
			p.wantPlace(t, id, true, "infected")
		})
	}
}

// Only what is completed is scanned again; what is not stays what it is.
func TestRescanOfOthers(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	waiting := p.receive(t, infectedPhoto(), infectedPhoto(), 0)
	gone := p.receive(t, infectedPhoto(), infectedPhoto(), 0)
	p.exec(t, `update uploads set status = 'completed', completed_at = now(), deleted_at = now(), purge_at = now() + interval '1 day'
		where id = '`+gone.String()+`'`)
	p.rescan(t, waiting, gone, uuid.New())
	p.run(t)
	p.await(t, idle)
	if n := p.count(t, `select count(*) from uploads where id = $1 and status = 'uploaded' or id = $2 and status = 'completed'`, waiting, gone); n != 2 {
		t.Errorf("%d are as they were", n)
	}
	p.wantPlace(t, gone, false, "")
}
