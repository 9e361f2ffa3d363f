package storage_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// withoutTenant are the tables that hold nothing of a tenant's: processes, jobs (which the server's role
// cannot read) and versions.
var withoutTenant = []string{"goose_db_version", "lease_holders", "river_job", "river_leader", "river_migration", "river_notification", "river_queue"}

// tenantTables are all tables but those known to have no tenant, so that a new table is a tenant's unless
// somebody says otherwise here.
func tenantTables(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	all := storagetest.Column[string](t, conn, `select relname::text from pg_class
		where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace order by 1`)
	for _, known := range withoutTenant {
		if !slices.Contains(all, known) {
			t.Errorf("there is no table %s any more", known)
		}
	}
	return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(withoutTenant, s) })
}

// tenantColumn is the column that names a row's tenant.
func tenantColumn(table string) string {
	if table == "tenants" {
		return "id"
	}
	return "tenant_id"
}

// What the server's role may not do, whatever the catalog seems to say.
func TestRoles(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	api := connect(t, d.URL("tramo_api"))
	for _, sql := range []string{
		"select * from river_job", "update river_job set args = '{}'", "delete from river_job",
		"select * from river_queue", "set role tramo_owner", "set role tramo_worker", "set role postgres",
		"alter table uploads disable row level security", "drop policy tenant on uploads", "truncate uploads",
		"create table public.mine (n int)", "delete from uploads", "update timeline set event = 'x'", "delete from timeline",
		"insert into scans default values", "update scans set verdict = 'clean'", "delete from scans",
		"select sealed from webhook_secrets", "update webhook_secrets set sealed = 'x'", "delete from webhook_secrets",
		"delete from webhook_deliveries", "update webhook_deliveries set endpoint_id = id", "update announcements set type = 'x'",
		"update audit set actor = 'x'", "delete from audit", "truncate audit",
		"update dead_letters set error = 'x'", "delete from dead_letters", "insert into dead_letters (attempts) values (1)",
		"update erasures set requested_by = 'x'", "delete from erasures", "update audit set actor = 'x'", "delete from audit", "truncate audit",
		"insert into audit_seals default values", "update audit_seals set hash = previous", "delete from audit_seals", "truncate audit_seals",
		"update tenants set quota_bytes = 1", "insert into tenants (id, name, quota_bytes) values (gen_random_uuid(), 'x', 1)",
		"insert into thumbnails default values", "update goose_db_version set version_id = 0",
		"create function f() returns int language sql security definer as 'select 1'",
	} {
		if _, err := api.Exec(t.Context(), sql); storagetest.SQLState(err) != "42501" {
			t.Errorf("tramo_api may %s: %v", sql, err)
		}
	}
}

func TestRequiredRoles(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	// A role that can become the workers' role by SET ROLE is not bound either.
	climber := "climber_" + d.Name
	d.Exec(t, fmt.Sprintf("create role %s login; grant tramo_worker to %[1]s", climber))
	for _, c := range []struct {
		role               string
		isolated, operator bool
	}{
		{"tramo_api", true, false},
		{"tramo_worker", false, true},
		{"postgres", false, true},
		{climber, false, false},
	} {
		db := d.As(t, c.role)
		if err := db.RequireTenantIsolation(t.Context()); (err == nil) != c.isolated {
			t.Errorf("isolation of %s: %v", c.role, err)
		}
		if err := db.RequireOperator(t.Context()); (err == nil) != c.operator {
			t.Errorf("%s as operator: %v", c.role, err)
		}
	}
}

// The door stays small: features keep their SQL in functions of their own.
func TestTxHasFewMethods(t *testing.T) {
	t.Parallel()
	own := reflect.TypeFor[storage.Tx]().NumMethod() - reflect.TypeFor[pgx.Tx]().NumMethod()
	if own > 40 {
		t.Errorf("storage.Tx has %d methods of its own", own)
	}
}

func TestInTenantNeedsATenant(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for name, ctx := range map[string]context.Context{
		"no identity": t.Context(),
		"no tenant":   tenant.With(t.Context(), tenant.Identity{User: "ana", Role: tenant.Admin}),
	} {
		err := d.API.InTenant(ctx, func(storage.Tx) error {
			t.Errorf("%s: a transaction was begun", name)
			return nil
		})
		stack.WantErr(t, err, tenant.ErrNoIdentity)
	}
}

// everyRow gives a tenant one row in every table that has a tenant.
func (d *database) everyRow(t *testing.T) (context.Context, uuid.UUID) {
	t.Helper()
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 100)
	owner := storagetest.TenantOf(t, ctx)
	d.Exec(t, fmt.Sprintf(`
		insert into parts values ('%[1]s', '%[2]s', 1, 10, 'etag');
		insert into tails values ('%[1]s', '%[2]s', 0, 'x');
		insert into thumbnails values ('%[1]s', '%[2]s', 160, 10, 10, 10, 'image/webp', 'key');
		insert into tags values ('%[1]s', '%[2]s', '{"IFD0": {"Make": "x"}}', false);
		insert into step_results values ('%[1]s', '%[2]s', '{scan}', '{}');
		insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts) values ('%[1]s', '%[2]s', '%[2]s', 7, 'x', 'scan', 'x', 3);
		insert into scans values ('%[1]s', '%[2]s', 'clean');
		with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
		insert into upload_leases select '%[1]s', '%[2]s', id, 1 from me;
		insert into audit (tenant_id, actor, role, action, outcome) values ('%[1]s', 'ana', 'empleado', 'x', 'done');
		insert into erasures (tenant_id, id, kind, subject, state, requested_by) values ('%[1]s', '%[2]s', 'user', 'x', 'running', 'ana');
		insert into announcements (tenant_id, type) values ('%[1]s', 'x');
		insert into batches (tenant_id, id, project, name, user_id, completed_at) values ('%[1]s', gen_random_uuid(), 'torre', 'x', 'ana', now());
		insert into idempotency_keys (tenant_id, user_id, key, request, answer) values ('%[1]s', 'ana', 'x', sha256(''), '');
		insert into webhook_endpoints (tenant_id, id, url, user_id) values ('%[1]s', '%[2]s', 'https://a.example/', 'ana');
		insert into webhook_secrets values ('%[1]s', '%[2]s', '%[2]s', 'x');
		insert into webhook_deliveries (tenant_id, id, endpoint_id, announcement_id)
		select tenant_id, '%[2]s', '%[2]s', id from announcements where tenant_id = '%[1]s';
		insert into audit_seals values ('%[1]s', 1, now(), now(), 0, '{0}', array[now()], array[sha256('')], sha256(''), sha256(''));
		insert into revocations values ('%[1]s', 'ana', now() - interval '1 year');
		insert into event_tickets values ('%[1]s', sha256('x'), now() + interval '1 minute', 'ana', 'empleado', null, null, now())`, owner, id))
	return ctx, id
}

// tryToReach is the other half of the check: as tenant A, with the tenant B spelled out in every statement, it tries to
// read, change, delete, take over and forge B's rows in every table, and returns what it got.
func (d *database) tryToReach(t *testing.T, ctxA, ctxB context.Context) (findings []string) {
	t.Helper()
	admin := d.Admin(t)
	a, b := storagetest.TenantOf(t, ctxA), storagetest.TenantOf(t, ctxB)
	before := map[string]string{}
	for _, table := range tenantTables(t, admin) {
		before[table] = dump(t, admin, table)
		if !strings.Contains(before[table], b.String()) {
			findings = append(findings, fmt.Sprintf("nothing of B in %s: extend everyRow", table))
			continue
		}
		col := tenantColumn(table)
		// Each statement must be refused by row-level security or by a missing right, or find no row.
		attack := func(name, sql string, args ...any) {
			t.Helper()
			err := d.API.InTenant(ctxA, func(tx storage.Tx) error {
				tag, err := tx.Exec(ctxA, sql, args...)
				if err == nil && (tag.RowsAffected() > 0 || name == "truncate") {
					findings = append(findings, fmt.Sprintf("%s of %s: %s", name, table, tag))
				}
				return cmp.Or(err, errUndone)
			})
			if s := storagetest.SQLState(err); !errors.Is(err, errUndone) && s != "42501" {
				findings = append(findings, fmt.Sprintf("%s of %s: %v", name, table, err))
			}
		}
		attack("read", fmt.Sprintf("select from %s where %s = $1", table, col), b)
		attack("lock", fmt.Sprintf("select from %s where %s = $1 for update", table, col), b)
		attack("delete", fmt.Sprintf("delete from %s where %s = $1", table, col), b)
		attack("theft", fmt.Sprintf("update %s set %s = $1 where %[2]s = $2", table, col), a, b)
		attack("gift", fmt.Sprintf("update %s set %s = $2 where %[2]s = $1", table, col), a, b)
		for _, c := range columnsOf(t, admin, table) {
			attack("change", fmt.Sprintf("update %s set %s = %[2]s where %[3]s = $1", table, c, col), b)
		}
		row := storagetest.Column[string](t, admin, fmt.Sprintf("select to_jsonb(x)::text from %s x where %s = $1 limit 1", table, col), b)[0]
		attack("forgery", fmt.Sprintf(`insert into %s overriding system value
			select * from jsonb_populate_record(null::%[1]s, $1)`, table), row)
		attack("truncate", "truncate "+table+" cascade")
	}
	for table := range before {
		if after := dump(t, admin, table); after != before[table] {
			findings = append(findings, fmt.Sprintf("%s changed from\n%s\nto\n%s", table, before[table], after))
		}
	}
	return findings
}

// errUndone takes an attack back that succeeded, so that the next one finds what there was.
var errUndone = errors.New("undone")

// As tenant A, nothing of B can be read, changed, deleted, taken over or forged, in any table.
func TestNobodyReachesAnotherTenantsRows(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctxA, _ := d.everyRow(t)
	ctxB, uploadB := d.everyRow(t)
	for _, f := range d.tryToReach(t, ctxA, ctxB) {
		t.Error(f)
	}

	// The same through the methods that the server uses.
	stack.WantErr(t, d.API.InTenant(ctxA, func(tx storage.Tx) error {
		_, err := tx.Upload(ctxA, uploadB)
		return err
	}), storage.ErrNotFound)
	stack.WantErr(t, d.API.InTenant(ctxA, func(tx storage.Tx) error {
		storage.ReadContent(tx, uploadB, new(storage.Upload), new(storage.Content))
		return nil
	}), storage.ErrNotFound)
	stack.WantErr(t, d.API.InTenant(ctxA, func(tx storage.Tx) error { return tx.Move(ctxA, uploadB, storage.Transition{Move: storage.MoveCancel}) }), storage.ErrWrongStatus)
	err := d.API.InTenant(ctxA, func(tx storage.Tx) error {
		tx.Append(ctxA, uploadB, storage.Entry{Event: "x"})
		return nil
	})
	if storagetest.SQLState(err) != "23503" {
		t.Errorf("an entry in B's timeline: %v", err)
	}
}

// Both fences stand alone: a statement whose author forgot the tenant sees its own tenant's rows, and none
// where no scope was set, also on a connection that had one.
func TestForgottenTenant(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctxA, _ := d.everyRow(t)
	d.everyRow(t)
	for _, table := range tenantTables(t, d.Admin(t)) {
		var readable bool // a table that the role may not read needs no tenant in its statements
		stack.Must(t, d.API.Pool().QueryRow(t.Context(), "select has_table_privilege($1, 'select')", table).Scan(&readable))
		if !readable {
			continue
		}
		var n int
		d.Must(t, ctxA, func(tx storage.Tx) error {
			return tx.QueryRow(ctxA, "select count(*) from "+table).Scan(&n)
		})
		stack.Want(t, n, 1, "rows of %s with scope", table)
		stack.Must(t, d.API.Pool().QueryRow(t.Context(), "select count(*) from "+table).Scan(&n))
		stack.Want(t, n, 0, "rows of %s without scope", table)
	}
}

func dump(t *testing.T, conn *pgx.Conn, table string) string {
	t.Helper()
	return strings.Join(storagetest.Column[string](t, conn, fmt.Sprintf("select to_jsonb(x)::text from %s x order by 1", table)), "\n")
}

// columnsOf are a table's columns that an update may name.
func columnsOf(t *testing.T, conn *pgx.Conn, table string) []string {
	t.Helper()
	return storagetest.Column[string](t, conn, `select attname::text from pg_attribute
		where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attidentity = ''`, table)
}
