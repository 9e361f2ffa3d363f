package live

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// maxFilterValues is how many values each filter of a listener may have.
const maxFilterValues = 100

// A filter says what a listener wants to hear of. An empty field matches all, others match any of their values.
type filter struct {
	uploads  []uuid.UUID
	batches  []string    // ids, or the names that their clients gave them
	batchIDs []uuid.UUID // those of batches that are ids
	projects []string
	user     string // whose uploads and batches; "" for all
}

func parseFilter(c echo.Context, who tenant.Identity) (f filter, err error) {
	query := c.QueryParams()
	for _, name := range []string{"upload", "batch", "project"} {
		if len(query[name]) > maxFilterValues {
			return f, problem.BadRequest("%s may be given %d times at most.", name, maxFilterValues)
		}
		for _, v := range query[name] {
			if v == "" || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return f, problem.BadRequest("%s must be UTF-8 text without NUL characters, and not empty.", name)
			}
		}
	}
	for _, v := range query["upload"] {
		id, err := uuid.Parse(v)
		if err != nil {
			return f, problem.BadRequest("upload must be the id of an upload.")
		}
		f.uploads = append(f.uploads, id)
	}
	f.batches, f.projects = query["batch"], query["project"]
	for _, b := range f.batches {
		if id := storage.BatchID(b); id != uuid.Nil {
			f.batchIDs = append(f.batchIDs, id)
		}
	}
	if v := query.Get("mine"); v != "" {
		mine, err := strconv.ParseBool(v)
		if err != nil {
			return f, problem.BadRequest("mine must be true or false.")
		}
		if mine {
			f.user = who.User
		}
	}
	return f, nil
}

// concerns reports whether who may see the message and asked for it.
func (f filter) concerns(m *message, who tenant.Identity) bool {
	if m.tenantWide {
		return who.Role.CanUpload() && (!m.forManagers || who.Role.CanManage() && who.Projects == nil) &&
			f.uploads == nil && f.batches == nil && f.projects == nil
	}
	return who.Sees(m.project) &&
		(f.uploads == nil || slices.Contains(f.uploads, m.subject)) &&
		(f.batches == nil || slices.Contains(f.batches, m.batch.String()) || slices.Contains(f.batches, m.label)) &&
		(f.projects == nil || slices.Contains(f.projects, m.project)) &&
		(f.user == "" || m.user == f.user)
}
