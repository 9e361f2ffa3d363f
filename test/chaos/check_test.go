package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"
)

// A checker compares what was promised with what there is, once all clients have ended and no server runs.
type checker struct {
	site    *site
	journal *journal
	conn    *pgx.Conn
	s3      *s3.Client
}

// checkAll looks at every promise, and returns what nobody owned before it was reconciled. What is broken is in the
// journal.
func checkAll(ctx context.Context, s *site, uploads []*upload) (orphans []orphan, err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	c := &checker{site: s, journal: s.journal, conn: conn, s3: s.S3.Client("")}
	for _, u := range uploads {
		c.checkOffsets(u)
		if u.done {
			if err := c.checkDone(ctx, u); err != nil {
				return nil, err
			}
		}
	}
	if err := c.checkRows(ctx); err != nil {
		return nil, err
	}
	if orphans, err = c.orphans(ctx); err != nil {
		return nil, err
	}
	if _, err := s.Tramo(ctx, "reconcile", "--grace", "0s"); err != nil {
		return nil, err
	}
	left, err := c.orphans(ctx)
	for _, o := range left {
		c.journal.violate("", "left after reconciling: %s %s", o.kind, o.text)
	}
	return orphans, err
}

// checkOffsets checks that an offset that a replica has answered never falls, for any client and at any replica.
func (c *checker) checkOffsets(u *upload) {
	for _, e := range setbacks(c.journal.of(u.name)) {
		c.journal.violate(u.name, "the offset went back: %s", e)
	}
}

// checkDone: an upload that is done has one row, one object with its bytes, and one job.
func (c *checker) checkDone(ctx context.Context, u *upload) error {
	if len(u.ids) > 1 {
		c.journal.violate(u.name, "one client_id was given %d uploads: %v", len(u.ids), u.ids)
	}
	rows, err := c.conn.Query(ctx, `
		select id::text, status, coalesce(encode(sha256, 'hex'), ''), coalesce(object_key, ''), charged_bytes, uploaded_at
		from uploads where client_id = $1`, u.name)
	if err != nil {
		return err
	}
	type row struct {
		ID, Status, SHA256, ObjectKey string
		Charged                       int64
		UploadedAt                    *time.Time
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return err
	}
	if len(found) != 1 {
		c.journal.violate(u.name, "it has %d rows: %+v", len(found), found)
		return nil
	}
	r := found[0]
	if !slices.Contains([]string{"uploaded", "processing", "completed"}, r.Status) {
		c.journal.violate(u.name, "done, but its status is %s", r.Status)
	}
	if r.SHA256 != u.sum {
		c.journal.violate(u.name, "its SHA-256 is %s, recorded is %q", u.sum, r.SHA256)
	}
	if r.Charged != int64(len(u.data)) {
		c.journal.violate(u.name, "it has %d bytes and is charged %d", len(u.data), r.Charged)
	}
	if r.UploadedAt != nil {
		c.checkTold(u, r.UploadedAt.Sub(c.journal.begun))
	}
	c.checkObject(ctx, u, r.ObjectKey)
	return nil
}

// checkTold checks that nobody was told an offset equal to the size before the transaction that finished the upload had begun.
func (c *checker) checkTold(u *upload, uploaded time.Duration) {
	for _, e := range c.journal.of(u.name) {
		if e.status < 300 && e.offset == int64(len(u.data)) && e.answered < uploaded {
			c.journal.violate(u.name, "told that it is complete, %s before it was: %s", uploaded-e.answered, e)
		}
	}
}

// checkRows checks of all uploads, also those whose clients have begun anew, that what the finish makes true is true together:
// the state, the object, one entry in the timeline, one job.
func (c *checker) checkRows(ctx context.Context) error {
	rows, err := c.conn.Query(ctx, `
		select format('%s of %s: status %s, uploaded %s, object %s, received %s of %s, %s jobs, %s entries', u.id, u.client_id, u.status,
			u.uploaded_at, u.object_key, c.received, u.size, jobs, entries)
		from uploads u join contents c on c.upload_id = u.id,
			lateral (select count(*) jobs from river_job where kind = 'process_upload' and args->>'upload_id' = u.id::text) j,
			lateral (select count(*) entries from timeline where upload_id = u.id and event = 'uploaded') e
		where case when u.uploaded_at is null then u.status = 'uploaded' or u.object_key is not null or jobs + entries > 0
			else c.received <> u.size or not c.stored or u.object_key is null or jobs <> 1 or entries <> 1 end`)
	if err != nil {
		return err
	}
	broken, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, text := range broken {
		c.journal.violate("", "what the finish makes true is not true together: %s", text)
	}
	if err != nil {
		return err
	}
	drift, err := c.strayQuota(ctx)
	for _, o := range drift {
		c.journal.violate("", "before reconciling, %s", o.text)
	}
	return err
}

// checkObject reads the object from S3 itself, past all proxies.
func (c *checker) checkObject(ctx context.Context, u *upload, key string) {
	res, err := c.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.site.Bucket, Key: &key})
	if err != nil {
		c.journal.violate(u.name, "done, but its object %q cannot be read: %v", key, err)
		return
	}
	defer res.Body.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, res.Body)
	if sum := hex.EncodeToString(hash.Sum(nil)); err != nil || sum != u.sum {
		c.journal.violate(u.name, "its object %s has %d bytes with SHA-256 %s; sent were %d with %s; %v", key, n, sum, len(u.data), u.sum, err)
	}
}

// An orphan is an object, a multipart upload or quota that no upload owns.
type orphan struct{ kind, text string }

// orphans returns what S3 and the quota hold and no upload owns.
func (c *checker) orphans(ctx context.Context) ([]orphan, error) {
	objects, err := c.strayObjects(ctx)
	if err != nil {
		return nil, err
	}
	open, err := c.openUploads(ctx)
	if err != nil {
		return nil, err
	}
	quota, err := c.strayQuota(ctx)
	return slices.Concat(objects, open, quota), err
}

// scratch begins the keys of what a replica tries its store with. What one that was killed leaves, another removes an hour later.
const scratch = "tenants/scratch/"

func (c *checker) strayObjects(ctx context.Context) (found []orphan, err error) {
	owned := map[string]bool{}
	rows, err := c.conn.Query(ctx, "select object_key from uploads where object_key is not null")
	if err != nil {
		return nil, err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		owned[key] = true
	}
	objects := s3.NewListObjectsV2Paginator(c.s3, &s3.ListObjectsV2Input{Bucket: &c.site.Bucket})
	for objects.HasMorePages() {
		page, err := objects.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			if !owned[key] && !strings.HasSuffix(key, "/") && !strings.HasPrefix(key, scratch) {
				kind, _, _ := strings.Cut(path.Base(key), "-")
				found = append(found, orphan{kind, fmt.Sprintf("%s of %d bytes", key, aws.ToInt64(o.Size))})
			}
		}
	}
	return found, nil
}

func (c *checker) openUploads(ctx context.Context) (found []orphan, err error) {
	open, err := c.s3.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &c.site.Bucket})
	if err != nil {
		return nil, err
	}
	for _, m := range open.Uploads {
		if strings.HasPrefix(aws.ToString(m.Key), scratch) {
			continue
		}
		found = append(found, orphan{"multipart upload", aws.ToString(m.Key)})
	}
	return found, nil
}

func (c *checker) strayQuota(ctx context.Context) (found []orphan, err error) {
	var charged, sum int64
	err = c.conn.QueryRow(ctx, "select charged_bytes, (select coalesce(sum(charged_bytes), 0) from uploads where tenant_id = tenants.id) from tenants where id = $1",
		c.site.tenant).Scan(&charged, &sum)
	if charged != sum {
		found = append(found, orphan{"quota", fmt.Sprintf("the tenant is charged %d bytes, its uploads %d", charged, sum)})
	}
	return found, err
}
