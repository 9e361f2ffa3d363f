package storage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// What the catalog says of isolation, as findings: one line for each thing that is not as it must be. Every relation of
// the schema is looked at, so that a new one is a tenant's unless somebody says otherwise here.

const (
	narrowed  = "((COALESCE(current_setting('app.projects'::text, true), ''::text) = ''::text) OR (project = ANY (string_to_array(current_setting('app.projects'::text, true), ','::text))))"
	undressed = "(COALESCE(current_setting('app.completed_only'::text, true), ''::text) = ''::text)"
	unscoped  = "((COALESCE(current_setting('app.projects'::text, true), ''::text) = ''::text) AND " + undressed + ")"
)

// restrictions are the policies that narrow what a tenant's user sees inside the tenant, by table and name. One that is
// missing, or another one, is a finding.
var restrictions = map[string]string{
	"uploads.scope": "ALL to {public} using (" + narrowed + " AND (" + undressed + " OR (status = 'completed'::text))) check " + narrowed,
	"batches.scope": "ALL to {public} using (" + narrowed + " AND (" + undressed +
		" OR ((completed_at IS NOT NULL) AND (NOT failed)))) check " + narrowed,
	"uploads.undeleted": "ALL to {public} using ((deleted_at IS NULL) OR (COALESCE(current_setting('app.deleted'::text, true), ''::text) <> ''::text))" +
		" check true",
	"dead_letters.scope": "ALL to {public} using (EXISTS ( SELECT\n   FROM uploads u\n" +
		"  WHERE ((u.tenant_id = dead_letters.tenant_id) AND (u.id = dead_letters.upload_id)))) check ",
	"announcements.undispatched": "INSERT to {tramo_api} using  check ((dispatched_at IS NULL) OR (type = 'webhook.test'::text))",
	"audit.programs": "INSERT to {tramo_api} using  check (lower(actor) <> ALL (ARRAY['worker'::text, 'eraser'::text, 'reconciler'::text," +
		" 'rescan'::text, 'operator'::text, 'erased'::text]))",
	"webhook_deliveries.undelivered": "UPDATE to {tramo_api} using true check ((state <> 'delivered'::text) AND (job_id IS NULL))",
	"audit.tenant_wide":              "SELECT to {public} using " + unscoped + " check ",
}

// looseKeys are the keys that have no tenant in them: tenants' names belong to the operator, holders are processes.
var looseKeys = []string{"tenants_name_key", "upload_leases_holder_id_fkey"}

// readable are the tables without a tenant that the server's role may read.
var readable = []string{"lease_holders"}

// An inspection gathers findings.
type inspection struct {
	*testing.T
	conn     *pgx.Conn
	findings []string
}

func (c *inspection) find(format string, args ...any) {
	c.findings = append(c.findings, fmt.Sprintf(format, args...))
}

// list finds each row of a query that returns text, behind what.
func (c *inspection) list(what, sql string, args ...any) {
	c.Helper()
	for _, s := range storagetest.Column[string](c.T, c.conn, sql, args...) {
		c.find("%s: %s", what, s)
	}
}

// ours are the relations that count, as c: all of the schema's but goose's, which belong to whoever migrates.
const ours = `pg_class c where c.relnamespace = 'public'::regnamespace and c.relname not like 'goose\_%'`

// checkCatalog is the static half of the check.
func checkCatalog(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	c := &inspection{T: t, conn: conn}
	for _, table := range tenantTables(t, conn) {
		c.table(table)
		c.policies(table)
		c.keys(table)
	}
	c.ways()
	c.rights()
	return c.findings
}

func (c *inspection) table(table string) {
	type facts struct {
		Owner          string
		Enabled, Force bool
		NotNull        bool
		Type           string
	}
	var f facts
	stack.Must(c.T, c.conn.QueryRow(c.Context(), `
		select pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity,
			coalesce(a.attnotnull, false), coalesce(a.atttypid::regtype::text, '')
		from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attname = $2 and not a.attisdropped
		where c.oid = $1::text::regclass`, table, tenantColumn(table)).Scan(&f.Owner, &f.Enabled, &f.Force, &f.NotNull, &f.Type))
	if want := (facts{"tramo_owner", true, true, true, "uuid"}); f != want {
		c.find("table %s: %+v, want %+v", table, f, want)
	}
}

// policies wants exactly one that opens the table, to its tenant, and beside it those that are known to narrow it.
func (c *inspection) policies(table string) {
	rows, err := c.conn.Query(c.Context(), `
		select policyname::text, permissive, format('%s to %s using %s check %s', cmd, roles, qual, with_check)
		from pg_policies where schemaname = 'public' and tablename = $1`, table)
	stack.Must(c.T, err)
	type policy struct{ Name, Permissive, Text string }
	policies, err := pgx.CollectRows(rows, pgx.RowToStructByPos[policy])
	stack.Must(c.T, err)
	expr := fmt.Sprintf("(%s = (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid)", tenantColumn(table))
	want := map[string]string{"PERMISSIVE tenant": "ALL to {public} using " + expr + " check " + expr}
	for name, text := range restrictions {
		if name, ok := strings.CutPrefix(name, table+"."); ok {
			want["RESTRICTIVE "+name] = text
		}
	}
	for _, p := range policies {
		name := p.Permissive + " " + p.Name
		if p.Text != want[name] {
			c.find("policy %s of %s: %s, want %q", name, table, p.Text, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		c.find("policy %s of %s: is missing", name, table)
	}
}

// keys wants the tenant in every key and every unique index, and a foreign key to lead from the tenant to the same
// tenant: foreign keys bypass row-level security.
func (c *inspection) keys(table string) {
	col := tenantColumn(table)
	c.list("key without the tenant", `
		select conname || ' of ' || $1 || ': ' || pg_get_constraintdef(k.oid) from pg_constraint k
		where conrelid = $1::text::regclass and contype in ('p', 'u', 'x') and conname <> all ($3)
		and not exists (select from pg_attribute a
			where a.attrelid = k.conrelid and a.attnum = any(k.conkey) and a.attname = $2)`, table, col, looseKeys)
	c.list("index without the tenant", `
		select i.indexrelid::regclass::text || ' of ' || $1 from pg_index i
		where i.indrelid = $1::text::regclass and i.indisunique and i.indexrelid::regclass::text <> all ($3)
		and not exists (select from pg_attribute a
			where a.attrelid = i.indrelid and a.attnum = any(i.indkey) and a.attname = $2)`, table, col, looseKeys)
	c.list("foreign key that leaves the tenant", `
		select conname || ' of ' || $1 || ': ' || pg_get_constraintdef(k.oid) from pg_constraint k
		where conrelid = $1::text::regclass and contype = 'f' and conname <> all ($3)
		and not exists (
			select from unnest(k.conkey, k.confkey) as pair (here, there)
			join pg_attribute h on h.attrelid = k.conrelid and h.attnum = pair.here
			join pg_attribute a on a.attrelid = k.confrelid and a.attnum = pair.there
			where h.attname = $2 and a.attname = case when k.confrelid = 'tenants'::regclass then 'id' else 'tenant_id' end)`,
		table, col, looseKeys)
}

// ways finds what leads around the policies of tables.
func (c *inspection) ways() {
	c.list("view that runs with its owner's rights", `select c.relname from `+ours+`
		and c.relkind = 'v' and not coalesce('security_invoker=true' = any (c.reloptions), false)`)
	c.list("relation that no policy binds", `select format('%s (%s)', c.relname, c.relkind) from `+ours+` and c.relkind in ('m', 'f')`)
	c.list("function that runs with its owner's rights", `select p.oid::regprocedure::text from pg_proc p
		where p.pronamespace = 'public'::regnamespace and p.prosecdef`)
	c.list("rule", `select r.rulename || ' of ' || r.ev_class::regclass from pg_rewrite r join `+
		strings.Replace(ours, " where", " on c.oid = r.ev_class where", 1)+` and c.relkind <> 'v'`)
	c.list("schema that nobody looks at", `select nspname::text from pg_namespace
		where nspname not in ('public', 'information_schema') and nspname not like 'pg\_%'`)
	c.list("setting that is there before anybody sets it", `select format('%s in role %s, database %s', s, setrole, setdatabase)
		from pg_db_role_setting, unnest(setconfig) s
		where (setdatabase = 0 or setdatabase = (select oid from pg_database where datname = current_database()))
		and (s like 'app.%' or s like 'row_security%' or s like 'role=%')`)
}

// rights finds what somebody may who should not.
func (c *inspection) rights() {
	c.list("owner", `select format('%s of %s', pg_get_userbyid(c.relowner), c.relname) from `+ours+` and c.relowner <> 'tramo_owner'::regrole`)
	c.list("owner", `select format('%s of %s', pg_get_userbyid(proowner), oid::regprocedure) from pg_proc
		where pronamespace = 'public'::regnamespace and proowner <> 'tramo_owner'::regrole`)
	c.list("grant", `
		select format('%s on %s to %s', g.privilege_type, c.relname, case g.grantee when 0 then 'public' else pg_get_userbyid(g.grantee)::text end)
		from (select c.oid, aclexplode(c.relacl) g from `+ours+`
			union all select c.oid, aclexplode(a.attacl) from `+strings.Replace(ours, " where", " join pg_attribute a on a.attrelid = c.oid where", 1)+`) x (oid, acl)
		join pg_class c using (oid), lateral (select (x.acl).*) g
		where g.grantee not in (select oid from pg_roles where rolname in ('tramo_owner', 'tramo_api', 'tramo_worker'))
		or g.is_grantable and g.grantee <> 'tramo_owner'::regrole
		or g.privilege_type in ('TRUNCATE', 'REFERENCES', 'TRIGGER') and g.grantee <> 'tramo_owner'::regrole
		or c.relname in ('audit', 'timeline') and g.privilege_type in ('UPDATE', 'DELETE') and g.grantee = 'tramo_api'::regrole
		or c.relname in ('audit', 'audit_seals') and g.privilege_type in ('UPDATE', 'DELETE') and g.grantee = 'tramo_worker'::regrole`)
	c.list("right to make things", `select r from unnest(array['public', 'tramo_api', 'tramo_worker']) r where has_schema_privilege(r, 'public', 'create')`)
	c.list("default right", `select format('%s: %s', defaclrole::regrole, defaclacl) from pg_default_acl`)
	// The arguments of jobs are of all tenants.
	c.list("what tramo_api reads of no tenant", `select c.relname from `+ours+` and c.relkind in ('r', 'p', 'v')
		and c.relname <> all ($1) and c.relname = any ($2) and (has_table_privilege('tramo_api', c.oid, 'select')
			or has_any_column_privilege('tramo_api', c.oid, 'select'))`, readable, withoutTenant)
	c.list("role", `
		select format('%s: login %s, bypasses %s, more %s, is member of %s', rolname, rolcanlogin, rolbypassrls,
			rolsuper or rolcreaterole or rolcreatedb or rolreplication, member)
		from pg_roles r, lateral (select array(select roleid::regrole::text from pg_auth_members m where m.member = r.oid) member) m
		where rolname in ('tramo_owner', 'tramo_api', 'tramo_worker')
		and (rolname, rolcanlogin, rolbypassrls, rolsuper or rolcreaterole or rolcreatedb or rolreplication, cardinality(member))
			not in (('tramo_owner', false, false, false, 0), ('tramo_api', true, false, false, 0), ('tramo_worker', true, true, false, 0))`)
}

// Every table with tenant data is behind row-level security in the same way, and nothing leads around it; the catalog
// says so.
func TestCatalogKeepsTenantsApart(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).Admin(t)
	if tables := tenantTables(t, conn); len(tables) < 10 {
		t.Fatalf("only %v have a tenant", tables)
	}
	for _, f := range checkCatalog(t, conn) {
		t.Error(f)
	}
}

// The check would say so if somebody made a mistake: each is made here, and found by the half that can see it.
func TestCatalogCheckFindsMistakes(t *testing.T) {
	t.Parallel()
	const own = "tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid"
	table := func(columns string) string {
		return `set role tramo_owner; create table notes (` + columns + `);
			alter table notes enable row level security, force row level security;
			create policy tenant on notes using (` + own + `) with check (` + own + `);
			grant select, insert, update, delete on notes to tramo_api; reset role;`
	}
	const good = "tenant_id uuid not null references tenants, id uuid, upload_id uuid, text text, primary key (tenant_id, id)"
	for name, c := range map[string]struct {
		sql     string
		static  string // the beginning of a finding of the catalog; "" for none
		dynamic string // the beginning of a finding of the attempts; "" for none
	}{
		"nothing": {"select", "", ""},
		"RLS off": {"alter table parts disable row level security", "table parts", "read of parts"},
		// The owner is a role that cannot log in.
		"RLS not forced":           {"alter table parts no force row level security", "table parts", ""},
		"no policy":                {"drop policy tenant on parts", "policy PERMISSIVE tenant of parts: is missing", ""},
		"policy without check":     {"alter policy tenant on parts with check (true)", "policy PERMISSIVE tenant of parts", "forgery of parts"},
		"policy that reads all":    {"alter policy tenant on parts using (true)", "policy PERMISSIVE tenant of parts", "read of parts"},
		"policy that is true":      {"alter policy tenant on parts using (true) with check (true)", "policy PERMISSIVE tenant of parts", "delete of parts"},
		"policy more":              {"create policy support on parts for select using (true)", "policy PERMISSIVE support of parts", "read of parts"},
		"policy for reading alone": {"drop policy tenant on parts; create policy tenant on parts for select using (" + own + ")", "policy PERMISSIVE tenant of parts", ""},
		"policy of one role":       {"drop policy tenant on parts; create policy tenant on parts to tramo_worker using (" + own + ")", "policy PERMISSIVE tenant of parts", ""},
		"policy open by default":   {"alter policy tenant on parts using (coalesce(" + own + ", true))", "policy PERMISSIVE tenant of parts", ""},
		"scope taken away":         {"drop policy scope on uploads", "policy RESTRICTIVE scope of uploads: is missing", ""},
		"scope widened":            {"alter policy scope on uploads using (true)", "policy RESTRICTIVE scope of uploads", ""},
		"narrowing nobody knows":   {"create policy more on parts as restrictive using (true)", "policy RESTRICTIVE more of parts", ""},

		"table, well made":       {table(good), "", "nothing of B in notes"},
		"table without a tenant": {"set role tramo_owner; create table notes (id uuid primary key, text text); grant select on notes to tramo_api", "table notes", "nothing of B in notes"},
		"table, tenant may lack": {table(strings.Replace(good, "uuid not null", "uuid", 1)+", unique (tenant_id)") + "alter table notes drop constraint notes_pkey, alter tenant_id drop not null", "table notes", "nothing of B in notes"},
		"table, tenant as text":  {strings.ReplaceAll(table("tenant_id text not null, id uuid, primary key (tenant_id, id)"), "::uuid", ""), "table notes", "nothing of B in notes"},
		"key without tenant":     {table(strings.Replace(good, "(tenant_id, id)", "(id)", 1)), "key without the tenant: notes_pkey", "nothing of B in notes"},
		"index without tenant":   {"set role tramo_owner; create unique index loose on uploads (client_id)", "index without the tenant: loose", ""},
		"exclusion without":      {"set role tramo_owner; alter table uploads add constraint loose exclude using hash (filename with =)", "key without the tenant: loose", ""},
		"foreign key without":    {"set role tramo_owner; alter table parts add column holder uuid, add constraint loose foreign key (holder) references lease_holders", "foreign key that leaves the tenant: loose", ""},
		"foreign key crossed":    {"set role tramo_owner; create unique index on uploads (id, tenant_id); alter table parts add column other uuid, add constraint crossed foreign key (tenant_id, other) references uploads (id, tenant_id)", "foreign key that leaves the tenant: crossed", ""},

		"view":                   {"set role tramo_owner; create view all_parts as select * from parts; grant select on all_parts to tramo_api", "view that runs with its owner's rights: all_parts", ""},
		"view of a stranger":     {"create view all_parts with (security_invoker = true) as select * from parts", "owner: postgres of all_parts", ""},
		"materialized view":      {"set role tramo_owner; create materialized view all_parts as select * from parts", "relation that no policy binds: all_parts", ""},
		"definer function":       {"set role tramo_owner; create function peek() returns bigint language sql security definer as 'select count(*) from parts'", "function that runs with its owner's rights: peek()", ""},
		"function of a stranger": {"create function peek() returns bigint language sql as 'select 1::bigint'", "owner: postgres of peek()", ""},
		"rule":                   {"create rule loud as on insert to parts do also notify parts", "rule: loud of parts", ""},
		"other schema":           {"create schema archive; create table archive.parts as table public.parts", "schema that nobody looks at: archive", ""},
		"tenant by default":      {"do $$ begin execute format('alter database %I set app.tenant_id = %L', current_database(), gen_random_uuid()); end $$", "setting that is there before anybody sets it", ""},

		"table of a stranger":     {"alter table parts owner to postgres", "table parts", ""},
		"table of the server's":   {"alter table parts owner to tramo_api", "table parts", "truncate of parts"},
		"grant to public":         {"grant select on parts to public", "grant: SELECT on parts to public", ""},
		"column to public":        {"grant select (etag) on parts to public", "grant: SELECT on parts to public", ""},
		"grant that can go on":    {"grant select on parts to tramo_api with grant option", "grant: SELECT on parts to tramo_api", ""},
		"truncate":                {"grant truncate on parts to tramo_api", "grant: TRUNCATE on parts to tramo_api", "truncate of parts"},
		"audit can be changed":    {"grant update on audit to tramo_api", "grant: UPDATE on audit to tramo_api", ""},
		"audit can be emptied":    {"grant delete on audit to tramo_worker", "grant: DELETE on audit to tramo_worker", ""},
		"jobs can be read":        {"grant select on river_job to tramo_api", "what tramo_api reads of no tenant: river_job", ""},
		"arguments can be read":   {"grant select (args) on river_job to tramo_api", "what tramo_api reads of no tenant: river_job", ""},
		"default rights":          {"alter default privileges for role tramo_owner grant select on tables to tramo_api", "default right: tramo_owner", ""},
		"schema open to everyone": {"grant create on schema public to public", "right to make things: public", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			admin := d.Admin(t)
			var ctxA, ctxB context.Context
			if c.dynamic != "" || name == "nothing" {
				ctxA, _ = d.everyRow(t)
				ctxB, _ = d.everyRow(t)
			}
			_, err := admin.Exec(t.Context(), c.sql+"; reset role")
			stack.Must(t, err)
			wantFinding(t, "the catalog", checkCatalog(t, admin), c.static)
			if ctxA != nil {
				wantFinding(t, "whoever tries", d.tryToReach(t, ctxA, ctxB), c.dynamic)
			}
		})
	}
}

// wantFinding wants one that begins so, or none at all.
func wantFinding(t *testing.T, who string, findings []string, want string) {
	t.Helper()
	begins := func(f string) bool { return strings.HasPrefix(f, want) }
	if want == "" && len(findings) > 0 || want != "" && !slices.ContainsFunc(findings, begins) {
		t.Errorf("%s finds %q, want %q", who, findings, want)
	}
}
