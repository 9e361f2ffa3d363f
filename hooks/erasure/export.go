package erasure

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// A Section is one kind of rows in an export.
type Section struct {
	Type string // of its rows
	rows string // a query for the rows of tenant $1 behind the key $2 ("": from the first): key, row; in the key's order
}

// after is the condition that pages through a table by a key of the type named, which follows the tenant in an index.
func after(key, kind string) string {
	return `x.tenant_id = $1 and ($2 = '' or x.` + key + ` > nullif($2, '')::` + kind + `) order by x.` + key + ` limit $3`
}

// exported are the sections of an export. Each table that has a tenant is in one of them, or in notExported.
var exported = []struct {
	Section
	tables []string
}{
	{Section{"tenant", `select '' as key, to_jsonb(x) as row from tenants x where x.id = $1 and $2 = '' and $3 > 0`}, []string{"tenants"}},
	{Section{"upload", `
		select x.id::text as key, to_jsonb(x) || jsonb_build_object('received', c.received,
			'thumbnails', coalesce((select jsonb_agg(to_jsonb(d) - '{tenant_id,upload_id}'::text[] order by d.size)
				from thumbnails d where d.tenant_id = x.tenant_id and d.upload_id = x.id), '[]'),
			'tags', (select to_jsonb(t) - '{tenant_id,upload_id}'::text[]
				from tags t where t.tenant_id = x.tenant_id and t.upload_id = x.id),
			'timeline', coalesce((select jsonb_agg(to_jsonb(t) - '{tenant_id,upload_id}'::text[] order by t.seq)
				from timeline t where t.tenant_id = x.tenant_id and t.upload_id = x.id), '[]'),
			'scan', (select to_jsonb(s) - '{tenant_id,upload_id}'::text[] from scans s where s.tenant_id = x.tenant_id and s.upload_id = x.id)) as row
		from uploads x join contents c on c.tenant_id = x.tenant_id and c.upload_id = x.id
		where (x.purge_at is null or x.purge_at > now()) and ` + after("id", "uuid")},
		[]string{"uploads", "contents", "thumbnails", "tags", "timeline", "scans"}},
	{Section{"batch", `select x.id::text as key, to_jsonb(x) as row from batches x where ` + after("id", "uuid")}, []string{"batches"}},
	{Section{"webhook", `select x.id::text as key, to_jsonb(x) as row from webhook_endpoints x where ` + after("id", "uuid")}, []string{"webhook_endpoints"}},
	{Section{"erasure", `select x.id::text as key, to_jsonb(x) as row from erasures x where ` + after("id", "uuid")}, []string{"erasures"}},
	{Section{"audit", `select x.seq::text as key, to_jsonb(x) as row from audit x where ` + after("seq", "bigint")}, []string{"audit"}},
}

// notExported are the tables with a tenant that no export has, each with the reason.
var notExported = map[string]string{
	"parts":              "how S3 is to put together an upload that is not complete: no content, and nothing that the tenant said",
	"tails":              "bytes of uploads that are not complete; their clients have them",
	"upload_leases":      "which process writes an upload at this moment",
	"idempotency_keys":   "answers to requests, kept for repetitions of the request; the other rows have the same",
	"webhook_secrets":    "secrets: the tenant has its own copy, and an export would spread them",
	"webhook_deliveries": "attempts to deliver announcements",
	"event_tickets":      "secrets of listeners, good for half a minute",
	"step_results":       "results of steps, kept until processing ends; then the uploads have them",
	"dead_letters":       "internal causes, for the operator of the installation; the timelines tell the tenant what became of its uploads",
	"audit_seals":        "hashes of the audit log, by which the operator of the installation verifies it",
	"revocations":        "which tokens are refused; the audit log tells who ended them, and when",
	"announcements":      "deliveries to come; the timelines have the same",
}

// Sections returns the sections of an export, in its order.
func Sections() (all []Section) {
	for _, s := range exported {
		all = append(all, s.Section)
	}
	return all
}

// A Row is a row as Postgres writes it in JSON. The next page begins behind Key.
type Row struct {
	Key string          `db:"key"`
	Row json.RawMessage `db:"row"`
}

// Export returns at most limit rows of a section behind the key, "" for the first. Deleted uploads that can be restored are
// among them. Each page is of one moment; an export of many pages is not, for a slow reader must not hold a snapshot.
func Export(ctx context.Context, tx storage.Tx, s Section, behind string, limit int) (found []Row, err error) {
	err = tx.AmongDeleted(ctx, func() error {
		rows, err := tx.Query(ctx, s.rows, tx.Tenant, behind, limit)
		found, err = storage.Collect[Row]("export "+s.Type, rows, err)
		return err
	})
	return found, err
}

// MayExport returns a context that acts in the tenant that is to be exported, and writes the export to its audit log. For
// managers of other tenants it does not exist: [storage.ErrNotFound].
func (s *Service) MayExport(ctx context.Context, id uuid.UUID) (context.Context, error) {
	who, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	if id != who.Tenant {
		if who.Role != tenant.Admin || who.Projects != nil {
			return nil, storage.ErrNotFound
		}
		if who.Home == uuid.Nil {
			who.Home = who.Tenant
		}
		who.Tenant = id
		ctx = tenant.With(ctx, who)
	}
	if _, err := tenant.RequireManagerOfAll(ctx); err != nil {
		return nil, err
	}
	return ctx, s.DB.InTenant(ctx, func(tx storage.Tx) error {
		if _, err := tx.Account(ctx); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditTenantExport})
	})
}
