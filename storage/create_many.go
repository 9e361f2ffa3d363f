package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// insertUploads returns the ids of those that it has created, and the tenant's quota then: null where there is room and none of them could be, and no row
// where there is no room.
const insertUploads = `
	with charged as (
		update tenants set charged_bytes = charged_bytes + $3
		where id = $1 and erasing_at is null and charged_bytes + $3 <= quota_bytes
		returning id, charged_bytes, quota_bytes
	), created as (
		insert into uploads (tenant_id, id, user_id, client_id, project, batch, filename, declared_type, declared_sha256,
			metadata, size, charged_bytes, batch_id)
		select t.id, n.id, n.user_id, nullif(n.client_id, ''), n.project, nullif(n.batch, ''), nullif(n.filename, ''),
			nullif(n.declared_type, ''), n.declared_sha256, n.metadata, n.size, n.size, $2
		from charged t, unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[],
			$12::jsonb[], $13::bigint[])
			n (id, user_id, client_id, project, batch, filename, declared_type, declared_sha256, metadata, size)
		on conflict do nothing
		returning tenant_id, id
	), content as (
		insert into contents (tenant_id, upload_id) select tenant_id, id from created
	)
	select created.id, charged_bytes, quota_bytes from charged left join created on true`

// CreateUploads is [Tx.CreateUpload] for many uploads of one batch, whose sizes are known, in one statement: all or none.
// The ids that it returns are of those whose client id an upload has that the user cannot see; if there are any, or it
// returns [ErrQuotaExceeded], the transaction is to be given up. The batch stays as it is: see [Tx.OpenBatch].
func (tx Tx) CreateUploads(ctx context.Context, batch uuid.UUID, ns []NewUpload) (taken []uuid.UUID, err error) {
	if len(ns) == 0 {
		return nil, nil
	}
	var quota charge
	for _, n := range ns {
		quota.bytes += n.charge()
	}
	ids := column(ns, func(n NewUpload) uuid.UUID { return n.ID })
	rows, err := tx.Query(ctx, insertUploads, tx.Tenant, batch, quota.bytes, ids,
		column(ns, func(n NewUpload) string { return n.UserID }),
		column(ns, func(n NewUpload) string { return n.ClientID }),
		column(ns, func(n NewUpload) string { return n.Project }),
		column(ns, func(n NewUpload) string { return n.Batch }),
		column(ns, func(n NewUpload) string { return n.Filename }),
		column(ns, func(n NewUpload) string { return n.DeclaredType }),
		column(ns, func(n NewUpload) []byte { return n.DeclaredSHA256 }),
		column(ns, func(n NewUpload) map[string]string { return n.Metadata }),
		column(ns, func(n NewUpload) int64 { return n.Size }))
	if err != nil {
		return nil, fmt.Errorf("create uploads: %w", err)
	}
	var created []*uuid.UUID
	var id *uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&id, &quota.charged, &quota.quota}, func() error {
		created = append(created, id)
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("create uploads: %w", err)
	case len(created) == 0:
		return nil, ErrQuotaExceeded
	case len(created) < len(ns) || created[0] == nil:
		return slices.DeleteFunc(ids, func(id uuid.UUID) bool {
			return slices.ContainsFunc(created, func(c *uuid.UUID) bool { return c != nil && *c == id })
		}), nil
	}
	if err := tx.warn(ctx, quota); err != nil {
		return nil, err
	}
	tx.follow(ctx, MoveCreate, ids, column(ns, NewUpload.entry))
	return nil, nil
}

// column returns a column of rows, as a statement takes it.
func column[Row, Value any](rows []Row, value func(Row) Value) []Value {
	all := make([]Value, len(rows))
	for i, r := range rows {
		all[i] = value(r)
	}
	return all
}
