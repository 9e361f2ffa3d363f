package storage_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// What the audit log can be told is what its page explains, each action, and no more; and it is told of each somewhere.
func TestAuditActionsAreDocumented(t *testing.T) {
	t.Parallel()
	const root = ".."
	page, err := os.ReadFile(filepath.Join(root, "docs/reference/audit.md"))
	stack.Must(t, err)
	_, table, _ := strings.Cut(string(page), "| action | when |")
	table, _, _ = strings.Cut(table, "\n\n")
	var documented []string
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 1 {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented = append(documented, m[1])
			}
		}
	}
	known := storage.AuditActions()
	slices.Sort(known)
	slices.Sort(documented)
	stack.Want(t, known, documented, "actions of the log, which must be those in docs/reference/audit.md")

	list := filepath.Join(root, "storage/audit.go")
	source, err := os.ReadFile(list)
	stack.Must(t, err)
	names := regexp.MustCompile(`(?m)^\t(Audit\w+) += "([a-z._]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(names) != len(known) {
		t.Errorf("%d actions have a name in %s, and %d are listed", len(names), list, len(known))
	}
	written := sourcesBut(t, root, list)
	for _, n := range names {
		if !regexp.MustCompile(`\b` + n[1] + `\b`).Match(written) {
			t.Errorf("nobody writes %s", n[2])
		}
	}
}

// sourcesBut is what runs of the module, but for one file.
func sourcesBut(t *testing.T, root, but string) []byte {
	t.Helper()
	var all bytes.Buffer
	stack.Must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "node_modules" || e.Name() == ".git"):
			return filepath.SkipDir
		case path == but || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	}))
	return all.Bytes()
}

// An action that no page explains is not carried out: its entry fails, and the transaction with it.
func TestUnknownActionIsRefused(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	err := d.API.InTenant(ctx, func(tx storage.Tx) error { return tx.Audit(ctx, storage.Audit{Action: "upload.steal"}) })
	if err == nil || !strings.Contains(err.Error(), "upload.steal") {
		t.Errorf("%v", err)
	}
}

// The log tells of all projects: who is narrowed, and an investor, appends to it and reads nothing, whatever asks.
func TestAuditLogIsTheWholeCompanys(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	count := func(change func(*tenant.Identity)) (n int) {
		who, err := tenant.From(ctx)
		stack.Must(t, err)
		change(&who)
		ctx := tenant.With(ctx, who)
		d.Must(t, ctx, func(tx storage.Tx) error {
			stack.Must(t, tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadContent}))
			return tx.QueryRow(ctx, "select count(*) from audit").Scan(&n)
		})
		return n
	}
	for name, n := range map[string]int{
		"narrowed":    count(func(id *tenant.Identity) { id.Role, id.Projects = tenant.Admin, []string{"torre"} }),
		"an investor": count(func(id *tenant.Identity) { id.Role = tenant.Inversionista }),
	} {
		stack.Want(t, n, 0, "%s: number of entries", name)
	}
	stack.Want(t, count(func(*tenant.Identity) {}), 3, "number of entries that the company reads")
}
