package storage_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// granted is what the servers' role may do with each table: "d" if it may delete rows, and which columns it may select,
// insert and update. A table or a column that is not here is undecided.
var granted = map[string]string{
	"announcements":    "- si: batch_id detail dispatched_at tenant_id trace_id type upload_id s: created_at id",
	"audit":            "- si: action actor address detail home_tenant outcome request_id role subject tenant_id trace_id s: at seq",
	"audit_seals":      "- s: digests hash last_seq number previous sealed_at seqs tenant_id times until",
	"batches":          "- su: cancelled_at completed_at failed updated_at siu: manifest name si: client_id id project tenant_id user_id s: created_at",
	"contents":         "- su: hash_state multipart_id next_part object_key received stored tail_size touched_at si: tenant_id upload_id",
	"dead_letters":     "- su: discarded_at discarded_by retried_at retried_by s: attempts error failed_at id job_id kind step tenant_id trace_id upload_id",
	"erasures":         "- su: approved_at approved_by approved_from approved_home cancelled_by ended_at siu: starts_at state si: id kind requested_by requested_from requested_home subject tenant_id s: objects requested_at uploads",
	"event_tickets":    "d si: expires_at hash home_tenant projects role tenant_id token_expires_at token_issued_at user_id",
	"idempotency_keys": "- si: answer key request tenant_id user_id s: created_at",
	"lease_holders":    "d siu: expires_at si: id replica s: since i: process",
	"parts":            "d si: checksum etag number size tenant_id upload_id",
	"revocations":      "- s: issued_before subject tenant_id",
	"river_job":        "- i: args created_at kind max_attempts metadata priority queue scheduled_at state tags unique_key unique_states -: attempt attempted_at attempted_by errors finalized_at id",
	"scans":            "- su: release_reason released_at released_by released_signatures s: engine scanned_at signature signatures signed_at tenant_id upload_id verdict",
	"step_results":     "- -: done results tenant_id upload_id",
	"tags":             "- s: tags tenant_id truncated upload_id",
	"tails":            "d si: data start tenant_id upload_id",
	"tenants":          "- su: charged_bytes erasing_at s: created_at erased_at id max_upload_bytes max_uploads name quota_bytes suspended_at",
	"thumbnails":       "- s: bytes content_type height_px object_key size tenant_id upload_id width_px",
	"timeline":         "- si: at at_offset detail duration_ms event replica tenant_id trace_id upload_id s: seq",
	"upload_leases":    "d su: waiter siu: fence holder_id si: tenant_id upload_id",
	"uploads": "- su: deleted_at failure_detail failure_reason final_id object_key purge_at remains replaced_by sha256 status updated_at uploaded_at" +
		" siu: batch batch_id charged_bytes size" +
		" si: client_id declared_sha256 declared_type filename id kind metadata metadata_header partials project tenant_id user_id" +
		" s: altitude_m camera_make camera_model completed_at created_at detected_type direction_deg duration_s height_px latitude lens longitude no_thumbnail orientation pages partial placeholder software taken_at taken_local taken_zone title type_mismatch width_px",
	"webhook_deliveries": "- su: attempts claimed_at ended_at job_id last_error next_attempt_at state si: announcement_id endpoint_id id tenant_id s: created_at last_attempt_at last_ms last_status",
	"webhook_endpoints":  "d su: disabled_at disabled_reason failing_since held_until updated_at siu: description types url si: id tenant_id user_id s: created_at",
	"webhook_secrets":    "- su: valid_until si: endpoint_id id tenant_id i: sealed",
}

// grantsOf reads the same from the catalogue, for a role.
func grantsOf(t *testing.T, conn *pgx.Conn, role string) map[string]string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		select c.relname::text, a.attname::text,
			case when has_table_privilege($1, c.oid, 'delete') then 'd' else '' end,
			concat(case when has_column_privilege($1, c.oid, a.attnum, 'select') then 's' end,
				case when has_column_privilege($1, c.oid, a.attnum, 'insert') then 'i' end,
				case when has_column_privilege($1, c.oid, a.attnum, 'update') then 'u' end)
		from `+strings.Replace(ours, " where", " join pg_attribute a on a.attrelid = c.oid where", 1)+`
			and c.relkind in ('r', 'p', 'v') and a.attnum > 0 and not a.attisdropped
		order by 1, 4 desc, 2`, role)
	stack.Must(t, err)
	all := map[string]string{}
	last := map[string]string{}
	var table, column, remove, rights string
	_, err = pgx.ForEachRow(rows, []any{&table, &column, &remove, &rights}, func() error {
		if _, seen := all[table]; !seen {
			all[table] = cmp.Or(remove, "-")
		}
		if rights = cmp.Or(rights, "-"); rights != last[table] {
			all[table] += " " + rights + ":"
			last[table] = rights
		}
		all[table] += " " + column
		return nil
	})
	stack.Must(t, err)
	return all
}

// Each right of the servers' role on each column is one that somebody has decided on. River's tables change with River: of
// those it has rights on jobs only.
func TestGrantsOfServers(t *testing.T) {
	t.Parallel()
	got := grantsOf(t, newDatabase(t).Admin(t), "tramo_api")
	for _, table := range slices.Sorted(maps.Keys(got)) {
		if granted[table] == "" && strings.HasPrefix(table, "river_") && strings.HasPrefix(got[table], "- -: ") && strings.Count(got[table], ":") == 1 {
			continue
		}
		if got[table] != granted[table] {
			t.Errorf("%q: %q,\nwant %q", table, got[table], granted[table])
		}
	}
	for table := range granted {
		if got[table] == "" {
			t.Errorf("there is no table %s", table)
		}
	}
}

// A server whose statements are somebody else's, inside a tenant: it writes no history, no decision of another person, no
// result of a worker, no job that is not its own, and ends no other process's leases. Each of these is refused, and what it
// does every day is not.
func TestServersWriteNothingThatIsNotTheirs(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, id := d.everyRow(t)
	owner := storagetest.TenantOf(t, ctx)
	done, other := d.Create(t, ctx, 10), uuid.New()
	d.Exec(t, fmt.Sprintf(`
		insert into erasures (tenant_id, id, kind, state, requested_by) values ('%[1]s', '%[3]s', 'tenant', 'waiting', 'ana');
		insert into erasures (tenant_id, id, kind, subject, state, requested_by, starts_at)
			values ('%[1]s', gen_random_uuid(), 'user', 'x', 'scheduled', 'ana', now() + interval '1 hour');
		update uploads set status = 'uploaded', uploaded_at = now(), sha256 = sha256('x'), object_key = 'x' where id = '%[2]s';
		update tenants set erasing_at = now() where id = '%[1]s';
		update dead_letters set retried_at = now(), retried_by = 'ana';
		update lease_holders set process = gen_random_uuid(), expires_at = now() + interval '90 seconds';
		insert into lease_holders (id, replica, process, expires_at) values ('%[3]s', 'dead', gen_random_uuid(), now() - interval '1 minute')`, owner, done, other))
	job := func(columns, values string) string {
		return fmt.Sprintf(`insert into river_job (kind, queue, args, max_attempts%s) values (%s)`, columns, values)
	}
	args := func(tenant, upload uuid.UUID) string {
		return fmt.Sprintf(`'{"tenant_id": "%s", "upload_id": "%s"}', 3`, tenant, upload)
	}
	attack := func(sql string) (rows int64, state string) {
		t.Helper()
		err := d.API.InTenant(ctx, func(tx storage.Tx) error {
			tag, err := tx.Exec(ctx, sql)
			rows = tag.RowsAffected()
			return cmp.Or(err, errUndone)
		})
		if !errors.Is(err, errUndone) && storagetest.SQLState(err) == "" {
			t.Fatalf("%s: %v", sql, err)
		}
		return rows, storagetest.SQLState(err)
	}
	const audit = `insert into audit (tenant_id, actor, role, action, outcome`
	own := fmt.Sprintf("'%s'", owner)
	for _, sql := range []string{
		audit + `, at) values (` + own + `, 'ana', 'admin', 'x', 'done', now() - interval '1 year')`,
		audit + `, at) values (` + own + `, 'ana', 'admin', 'x', 'done', clock_timestamp())`,
		audit + `, seq) overriding system value values (` + own + `, 'ana', 'admin', 'x', 'done', 1)`,
		audit + `) values (` + own + `, 'operator', 'admin', 'x', 'done')`,
		audit + `) values (` + own + `, 'Worker', 'admin', 'x', 'done')`,

		`insert into erasures (tenant_id, id, kind, state, requested_by, approved_by, approved_at)
			values (` + own + `, gen_random_uuid(), 'tenant', 'running', 'ana', 'ben', now())`,
		`insert into erasures (tenant_id, id, kind, subject, state, requested_by, ended_at) values (` + own + `, gen_random_uuid(), 'user', 'x', 'done', 'ana', now())`,
		`insert into erasures (tenant_id, id, kind, subject, state, requested_by, requested_at) values (` + own + `, gen_random_uuid(), 'user', 'x', 'running', 'ana', '2020-01-01')`,
		`update erasures set state = 'done', ended_at = now() where state = 'running'`,
		`update erasures set state = 'cancelled', cancelled_by = 'ana', ended_at = now() where state = 'running'`,
		`update erasures set state = 'running', approved_by = 'ben', approved_at = '2020-01-01' where state = 'waiting'`,
		`update erasures set state = 'cancelled', cancelled_by = 'ana', ended_at = '2020-01-01' where state = 'waiting'`,
		`update erasures set uploads = 0`,
		`update erasures set state = 'running' where state = 'scheduled'`, `update erasures set starts_at = now() where state = 'scheduled'`,
		`update erasures set state = 'cancelled', cancelled_by = 'ana', ended_at = now(), starts_at = now() where state = 'scheduled'`,
		`update tenants set erasing_at = null`,
		`update tenants set suspended_at = null`,

		job("", `'inventory', 'inventory', '{}', 3`),
		job("", `'process_upload', 'webhooks', `+args(owner, id)),
		job("", `'process_upload', 'default', `+args(other, id)),
		job("", `'process_upload', 'default', `+args(owner, other)),
		job("", `'process_upload', 'default', '{}', 3`),
		job("", `'rescan_upload', 'rescan', `+args(owner, id)),
		job("", `'deliver_webhook', 'webhooks', `+args(owner, id)),
		job("", `'erase', 'erase', `+args(owner, id)),
		job(", state", `'erase', 'erase', '{}', 1, 'scheduled'`),
		job(", unique_key", `'erase', 'erase', '{}', 1, 'x'`),
		job(", attempt", `'erase', 'erase', '{}', 1, 1`),
		job(", attempted_by", `'erase', 'erase', '{}', 1, '{x}'`),

		`update lease_holders set expires_at = clock_timestamp() where replica = 'r'`,
		`update lease_holders set expires_at = expires_at + interval '1 year' where replica = 'r'`,
		`update lease_holders set expires_at = clock_timestamp() + interval '1 minute' where replica = 'dead'`,
		`update lease_holders set replica = 'mine'`, `update lease_holders set process = gen_random_uuid()`,
		`select process from lease_holders`, `insert into lease_holders (id, replica, expires_at, since) values (gen_random_uuid(), 'x', now(), '2020-01-01')`,

		`insert into uploads (tenant_id, id, user_id, project, metadata, charged_bytes, status) values (` + own + `, gen_random_uuid(), 'ana', 'torre', '{}', 0, 'completed')`,
		`insert into uploads (tenant_id, id, user_id, project, metadata, charged_bytes, created_at) values (` + own + `, gen_random_uuid(), 'ana', 'torre', '{}', 0, '2020-01-01')`,
		`update uploads set status = 'completed' where status = 'uploaded'`, `update uploads set status = 'processing' where status = 'uploaded'`,
		`update uploads set sha256 = sha256('y') where status = 'uploaded'`, `update uploads set object_key = 'y' where status = 'uploaded'`,
		`update uploads set uploaded_at = '2020-01-01' where status = 'uploaded'`,
		`update uploads set completed_at = now()`, `update uploads set user_id = 'ben'`, `update uploads set created_at = now()`,
		`update uploads set detected_type = 'text/html'`, `delete from contents`, `update parts set etag = 'x'`, `update contents set tenant_id = tenant_id`,

		`update scans set released_by = 'ana', release_reason = 'x', released_at = '2020-01-01'`,
		`update dead_letters set retried_at = null, retried_by = null`,
		`update dead_letters set discarded_by = 'ana', discarded_at = '2020-01-01'`,

		`insert into announcements (tenant_id, type, created_at) values (` + own + `, 'x', '2020-01-01')`,
		`insert into announcements (tenant_id, type, dispatched_at) values (` + own + `, 'x', now())`,
		`insert into webhook_deliveries (tenant_id, id, endpoint_id, announcement_id, state, next_attempt_at, ended_at)
			select tenant_id, gen_random_uuid(), endpoint_id, announcement_id, 'delivered', null, now() from webhook_deliveries`,
		`update webhook_deliveries set state = 'delivered', next_attempt_at = null, ended_at = now()`,
		`update webhook_deliveries set job_id = 1`, `update webhook_deliveries set attempts = 0, last_status = 200`,
		`insert into webhook_secrets (tenant_id, endpoint_id, id, sealed, valid_until) select tenant_id, id, id, 'x', now() from webhook_endpoints`,
		`insert into webhook_endpoints (tenant_id, id, url, user_id, created_at) values (` + own + `, gen_random_uuid(), 'x', 'ana', '2020-01-01')`,
		`insert into idempotency_keys (tenant_id, user_id, key, request, answer, created_at) values (` + own + `, 'ana', 'y', sha256('y'), '', '2020-01-01')`,
		`update idempotency_keys set answer = 'x'`, `delete from idempotency_keys`,
		`insert into batches (tenant_id, id, project, name, user_id, created_at) values (` + own + `, gen_random_uuid(), 'torre', 'x', 'ana', '2020-01-01')`,
		`insert into batches (tenant_id, id, project, name, user_id, completed_at) values (` + own + `, gen_random_uuid(), 'torre', 'x', 'ana', now())`,
		`insert into revocations values (` + own + `, 'ben', now())`, `delete from revocations`,
		`insert into timeline (tenant_id, upload_id, event, seq) overriding system value values (` + own + `, '` + id.String() + `', 'x', 1)`,
	} {
		if rows, state := attack(sql); state != "42501" {
			t.Errorf("%s\n%d rows, %q", sql, rows, state)
		}
	}
	if rows, state := attack(`delete from lease_holders where replica = 'r'`); rows != 0 || state != "" {
		t.Errorf("delete of a holder that lives: %d rows, %q", rows, state)
	}

	for _, sql := range []string{
		audit + `) values (` + own + `, 'ana', 'admin', 'x', 'done')`,
		job("", `'process_upload', 'default', `+args(owner, id)),
		job("", `'erase', 'erase', '{}', 1`),
		`delete from lease_holders where replica = 'dead'`,
		`update lease_holders set expires_at = expires_at + interval '1 second' where replica = 'r'`,
		`update erasures set state = 'running', approved_by = 'ben', approved_at = now() where state = 'waiting'`,
		`update erasures set state = 'cancelled', cancelled_by = 'ana', ended_at = now() where state = 'scheduled'`,
		`update dead_letters set discarded_by = 'ana', discarded_at = now()`,
		`update scans set released_by = 'ana', release_reason = 'x', released_at = now()`,
	} {
		if rows, state := attack(sql); rows != 1 || state != "" {
			t.Errorf("%s\n%d rows, %q", sql, rows, state)
		}
	}
	// Neither does a worker write history.
	err := d.Worker.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, audit+`, at) values ($1, 'worker', 'admin', 'x', 'done', '2020-01-01')`, owner)
		return err
	})
	stack.Want(t, storagetest.SQLState(err), "42501", "a worker's entry of 2020")
}
