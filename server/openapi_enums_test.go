package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tramo/tramo/test/stack"
)

// A batch counts each status that its uploads can have. Partial uploads, which end as concatenated, are in no batch.
func TestOpenAPIBatchCounts(t *testing.T) {
	t.Parallel()
	counts := newSite(t).description(t).Components.Schemas["BatchTotals"].Value.Properties["counts"].Value
	described := slices.Sorted(maps.Keys(counts.Properties))
	want := append(without(constantsOf(t, "storage", "Status", ""), "concatenated"), "total")
	slices.Sort(want)
	stack.Want(t, described, want, "described counts")
}

// The described values of each field are exactly the constants in the code.
func TestOpenAPIEnums(t *testing.T) {
	t.Parallel()
	schemas := newSite(t).description(t).Components.Schemas
	property := func(schema, name string) *openapi3.Schema { return schemas[schema].Value.Properties[name].Value }
	for name, c := range map[string]struct {
		described *openapi3.Schema
		constants []string
	}{
		"statuses of uploads":  {schemas["UploadStatus"].Value, constantsOf(t, "storage", "Status", "")},
		"reasons of failures":  {property("Failure", "reason"), constantsOf(t, "storage", "", "Reason")},
		"why no thumbnail":     {property("Upload", "no_thumbnail"), reasonsForNoThumbnail(t)},
		"events of a timeline": {property("TimelineEntry", "event"), constantsOf(t, "storage", "Event", "Event")},
		"announcements":        {schemas["AnnouncementType"].Value, constantsOf(t, "storage", "", "Announce")},
		"announcements for endpoints": {
			schemas["AnnouncementTypes"].Value.Items.Value,
			without(constantsOf(t, "storage", "", "Announce"), "webhook.test"), // it is sent whatever types an endpoint has
		},
		"states of batches":      {schemas["BatchState"].Value, constantsOf(t, "storage", "BatchState", "")},
		"states of dead letters": {schemas["DeadLetterState"].Value, constantsOf(t, "processing/deadletter", "State", "")},
		"states of deliveries":   {schemas["DeliveryState"].Value, constantsOf(t, "hooks/webhook", "DeliveryState", "")},
		"why one is disabled":    {property("WebhookFields", "disabled_reason"), constantsOf(t, "hooks/webhook", "", "Disabled")},
		"errors of deliveries":   {property("Delivery", "last_error"), constantsOf(t, "hooks/webhook", "", "error")},
		"states of erasures":     {property("Erasure", "state"), constantsOf(t, "hooks/erasure", "State", "")},
		"what is erased":         {property("Erasure", "kind"), constantsOf(t, "hooks/erasure", "Kind", "")},
		"actions of the audit":   {property("AuditEntry", "action"), constantsOf(t, "storage", "", "Audit")},
		"roles":                  {schemas["Role"].Value, constantsOf(t, "tenant", "Role", "")},
		"messages of a stream":   {property("Event", "event"), constantsOf(t, "server/live", "", "event")},
		"verdicts of scans":      {schemas["ScanVerdict"].Value, constantsOf(t, "storage", "ScanVerdict", "")},
	} {
		var described []string
		for _, v := range c.described.Enum {
			if v != nil {
				described = append(described, v.(string))
			}
		}
		slices.Sort(described)
		slices.Sort(c.constants)
		if len(described) == 0 || !slices.Equal(described, c.constants) {
			t.Errorf("%s: described are %q, the code has %q", name, described, c.constants)
		}
	}
}

// Postgres allows exactly the listed reasons for no thumbnail.
func TestReasonsForNoThumbnail(t *testing.T) {
	t.Parallel()
	var check string
	stack.Must(t, newSite(t).admin.QueryRow(t.Context(), `
		select pg_get_constraintdef(oid) from pg_constraint
		where conrelid = 'uploads'::regclass and pg_get_constraintdef(oid) like '%no_thumbnail%'`).Scan(&check))
	var allowed []string
	for _, m := range regexp.MustCompile(`'(\w+)'`).FindAllStringSubmatch(check, -1) {
		allowed = append(allowed, m[1])
	}
	reasons := reasonsForNoThumbnail(t)
	slices.Sort(allowed)
	slices.Sort(reasons)
	if len(allowed) == 0 || !slices.Equal(allowed, reasons) {
		t.Errorf("Postgres allows %q, the code has %q", allowed, reasons)
	}
}

func reasonsForNoThumbnail(t *testing.T) []string {
	t.Helper()
	return append(constantsOf(t, "processing/examine", "", "NoThumbnail"), constantsOf(t, "processing/sandbox", "", "Limit")...)
}

// constantsOf returns the values of a package's string constants that are declared with the type, or that have names of
// the prefix and another word.
func constantsOf(t *testing.T, dir, typed, prefix string) (values []string) {
	t.Helper()
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	stack.Must(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		stack.Must(t, err)
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				if c := s.(*ast.ValueSpec); isOf(c, typed, prefix) {
					values = append(values, stringsOf(t, c)...)
				}
			}
		}
	}
	return values
}

func isOf(c *ast.ValueSpec, typed, prefix string) bool {
	if typed != "" {
		id, ok := c.Type.(*ast.Ident)
		return ok && id.Name == typed
	}
	word, ok := strings.CutPrefix(c.Names[0].Name, prefix)
	return ok && word != "" && unicode.IsUpper(rune(word[0]))
}

func stringsOf(t *testing.T, c *ast.ValueSpec) (values []string) {
	t.Helper()
	for _, v := range c.Values {
		if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, err := strconv.Unquote(l.Value)
			stack.Must(t, err)
			values = append(values, s)
		}
	}
	return values
}

func without(values []string, one string) []string {
	return slices.DeleteFunc(values, func(v string) bool { return v == one })
}
