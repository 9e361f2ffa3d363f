package storage_test

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// Eight processes migrate one empty database of a cluster without Tramo's roles, and eight another, all at
// once: each succeeds, and one more migration of either changes nothing.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	cluster, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{})
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, cluster.Stop()) })
	g, ctx := errgroup.WithContext(t.Context())
	names := []string{"one", "two"}
	for _, name := range names {
		stack.Must(t, cluster.CreateDatabase(t.Context(), name, ""))
	}
	secrets := storage.Passwords{API: `it's "quoted" \ $1`, Worker: "wörker"}
	for _, name := range names {
		for range 8 {
			g.Go(func() error {
				return storage.Migrate(ctx, storage.Config{URL: telemetry.Secret(cluster.URL("postgres", name))}, secrets)
			})
		}
	}
	stack.Must(t, stack.Ended(t, "sixteen migrations", g.Wait))

	for _, name := range names {
		conn := connect(t, cluster.URL("postgres", name))
		before := catalog(t, conn)
		if !strings.Contains(before, "river_job.args") || !strings.Contains(before, "uploads.tenant_id") {
			t.Errorf("tables are missing from %s", before)
		}
		stack.Must(t, storage.Migrate(t.Context(), storage.Config{URL: telemetry.Secret(cluster.URL("postgres", name))}, storage.Passwords{}))
		stack.Want(t, catalog(t, conn), before, "schema after another migration")
		checkPassword(t, conn, "tramo_api", secrets.API)
		checkPassword(t, conn, "tramo_worker", secrets.Worker)
	}
}

// catalog is the schema as text: columns, constraints, indexes, policies and grants.
func catalog(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var text string
	stack.Must(t, conn.QueryRow(t.Context(), `
		select string_agg(line, E'\n' order by line) from (
			select format('%s.%s %s %s', table_name, column_name, data_type, is_nullable) line
			from information_schema.columns where table_schema = 'public'
			union all select conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint
				where connamespace = 'public'::regnamespace
			union all select indexdef from pg_indexes where schemaname = 'public'
			union all select format('%s %s %s %s', tablename, policyname, qual, with_check) from pg_policies
			union all select format('%s %s', relname, relacl) from pg_class where relnamespace = 'public'::regnamespace
			union all select format('version %s', count(*)) from goose_db_version
			union all select format('river version %s', count(*)) from river_migration
		) all_of_it`).Scan(&text))
	return text
}

// checkPassword computes the verifier that Postgres would keep for the password (RFC 5802, section 3).
func checkPassword(t *testing.T, conn *pgx.Conn, role, password string) {
	t.Helper()
	var verifier string
	stack.Must(t, conn.QueryRow(t.Context(), `select coalesce(rolpassword, '') from pg_authid where rolname = $1`, role).Scan(&verifier))
	var rounds int
	var salt64, stored64 string
	_, err := fmt.Sscanf(strings.NewReplacer("$", " ", ":", " ").Replace(verifier), "SCRAM-SHA-256 %d %s %s", &rounds, &salt64, &stored64)
	if err != nil {
		t.Errorf("%s has the verifier %q: %v", role, verifier, err)
		return
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	stack.Must(t, err)
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	stack.Must(t, err)
	mac := hmac.New(sha256.New, salted)
	mac.Write([]byte("Client Key"))
	stored := sha256.Sum256(mac.Sum(nil))
	stack.Want(t, base64.StdEncoding.EncodeToString(stored[:]), stored64, "stored password of %s", role)
}

// Kill a migration in the middle, by its context: the next one succeeds.
func TestMigrateAfterAnInterruptedOne(t *testing.T) {
	t.Parallel()
	name := uuid.NewString()
	stack.Must(t, stack.Get(t, ground.Postgres).CreateDatabase(t.Context(), name, ""))
	c := storage.Config{URL: telemetry.Secret(stack.Get(t, ground.Postgres).URL("postgres", name))}
	watcher := connect(t, string(c.URL))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- storage.Migrate(ctx, c, storage.Passwords{}) }()
	stack.Until(t, "a migration at work", func() bool {
		var n int
		stack.Must(t, watcher.QueryRow(t.Context(), `select count(*) from pg_locks where locktype = 'advisory'
			and database = (select oid from pg_database where datname = current_database())`).Scan(&n))
		return n > 0
	})
	cancel()
	if err := stack.Receive(t, "end of the interrupted migration", ended); err == nil {
		t.Log("the migration was faster")
	}
	stack.Must(t, storage.Migrate(t.Context(), c, storage.Passwords{}))
}

// released are the migrations that databases may have, with the SHA-256 of each. They are never changed: a new migration is a
// new file, and its line is added here.
var released = map[string]string{
	"00001_baseline.sql":        "83ebbbebe549c14827af9e11f9259424d53d4f4cd0245e77752580a498a5f6af",
	"00002_unreadable.sql":      "39a0a563b5657f876ebb4c6575e4e03155c41f8eaa7a990ae26a8815dd6ebde1",
	"00003_films.sql":           "3189366c6822ec8549bbece3a1824711a40b750512b02234833808a7c940ec46",
	"00004_metadata_header.sql": "23992c6d7ca6a2057eb4653af2204739d69e9429c3db6427bca86bf33fb22d01",
	"00005_tokens.sql":          "825f34021632b6264d1815ba52a0cac36e89b184b137471eb094dc35720912ad",
	"00006_remains.sql":         "9b1dbda772e4e1bb3a10a5ae46343206539dc83c157b61c39adbc58029b02676",
	"00007_grants.sql":          "991f7f8ae45f9191d0a5be6cde31ddd9349d3638f4ad4401f3009a3a55051891",
	"00008_audit_seals.sql":     "3dc676f793cf57b033610b81d690b33a88227fa409dd20e15b539685e6e2db00",
	"00009_erasure_delay.sql":   "8dd507b339c8d60d848c2a69698751914974ffccf2f2725e5924b2b8cc47cf20",
}

func TestReleasedMigrationsStay(t *testing.T) {
	t.Parallel()
	found := make(map[string]string)
	files, err := os.ReadDir("migrations")
	stack.Must(t, err)
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join("migrations", f.Name()))
		stack.Must(t, err)
		found[f.Name()] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	stack.Want(t, found, released, "migrations")
}
