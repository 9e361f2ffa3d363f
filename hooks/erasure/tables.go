package erasure

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// A table has rows of tenants.
type table struct {
	Name    string `db:"name"`
	Upload  bool   `db:"upload"`   // its rows are of uploads, upload_id
	User    bool   `db:"user"`     // its rows are of users, user_id
	UserKey bool   `db:"user_key"` // and each is one user's own: the user is part of its key
}

func (t table) name() string { return pgx.Identifier{t.Name}.Sanitize() }

// tenantTables returns all tables with rows of tenants in an order in which they can be emptied: a table stands before those
// that it refers to. The audit log, its seals and the erasures stay, and are not among them. It reads the catalog, so that a new table is
// erased with the others unless somebody decides against it.
func tenantTables(ctx context.Context, db *storage.DB) ([]table, error) {
	rows, err := db.Pool().Query(ctx, `
		with columns as (
			select c.oid, c.relname::text as name, a.attname, a.attnum = any(k.indkey) as in_key
			from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
			left join pg_index k on k.indrelid = c.oid and k.indisprimary
			where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = current_schema()::regnamespace
		)
		select name, bool_or(attname = 'upload_id') as upload, bool_or(attname = 'user_id') as "user",
			bool_or(attname = 'user_id' and in_key) is true as user_key
		from columns group by oid, name
		having bool_or(attname = 'tenant_id') and name not in ('audit', 'audit_seals', 'erasures') order by name`)
	tables, err := storage.Collect[table]("list tables", rows, err)
	if err != nil {
		return nil, err
	}
	type reference struct {
		From string `db:"from"`
		To   string `db:"to"`
	}
	rows, err = db.Pool().Query(ctx, `
		select distinct f.relname::text as from, t.relname::text as to from pg_constraint c
		join pg_class f on f.oid = c.conrelid join pg_class t on t.oid = c.confrelid
		where c.contype = 'f' and c.conrelid <> c.confrelid and f.relnamespace = current_schema()::regnamespace`)
	references, err := storage.Collect[reference]("list references", rows, err)
	if err != nil {
		return nil, err
	}
	var sorted []table
	for len(tables) > 0 {
		free := slices.IndexFunc(tables, func(t table) bool {
			return !slices.ContainsFunc(references, func(r reference) bool {
				return r.To == t.Name && slices.ContainsFunc(tables, func(o table) bool { return o.Name == r.From })
			})
		})
		if free < 0 {
			return nil, fmt.Errorf("tables refer to each other in a circle: %v", tables)
		}
		sorted = append(sorted, tables[free])
		tables = slices.Delete(tables, free, free+1)
	}
	return sorted, nil
}
