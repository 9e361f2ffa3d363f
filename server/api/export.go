package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

const (
	exportType = "application/x-ndjson"
	// exportLinks is how long the links in an export work, unless the credentials that sign them expire earlier.
	exportLinks = 24 * time.Hour
	exportPage  = 100 // rows in memory at a time
	// exportPatience is how long a reader may take to accept a page of rows.
	exportPatience = 2 * time.Minute
)

// An exportLine is a line of an export. The first line has the type export. The last line has the type end and the number
// of lines of each type: an export without it is incomplete.
type exportLine struct {
	Type   string          `json:"type"`
	Row    json.RawMessage `json:"row,omitempty"`
	Links  *exportLinkSet  `json:"links,omitempty"` // of a completed upload, which was found clean
	Tenant *uuid.UUID      `json:"tenant_id,omitempty"`
	At     *time.Time      `json:"at,omitempty"`
	Until  *time.Time      `json:"links_until,omitempty"`
	Counts map[string]int  `json:"counts,omitempty"`
}

type exportLinkSet struct {
	Original   string         `json:"original"`
	Thumbnails map[int]string `json:"thumbnails"` // by size in pixels
}

// ExportTenant streams all data of the tenant. It holds one page of rows, and no transaction while the client reads.
func (a *API) ExportTenant(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	ctx, err := a.Erasures.MayExport(c.Request().Context(), id)
	if err != nil {
		return err
	}
	until, err := a.Bucket.LinksUntil(ctx, exportLinks)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", exportType)
	h.Set("Content-Disposition", `attachment; filename="tramo-`+id.String()+`.ndjson"`)
	h.Set("X-Content-Type-Options", "nosniff")
	c.Response().WriteHeader(http.StatusOK)
	x := &export{api: a, out: bufio.NewWriterSize(c.Response(), 64<<10), control: http.NewResponseController(c.Response()), until: until}
	if err := x.run(ctx, id); err != nil {
		if !errors.Is(err, context.Canceled) {
			a.Log.WarnContext(ctx, "export interrupted", slog.Any("err", err))
		}
		panic(http.ErrAbortHandler) // closes the connection, so that the client sees that the export is incomplete
	}
	return nil
}

type export struct {
	api     *API
	out     *bufio.Writer
	control *http.ResponseController
	until   time.Time
}

func (x *export) run(ctx context.Context, id uuid.UUID) error {
	now := time.Now().UTC()
	if err := x.line(exportLine{Type: "export", Tenant: &id, At: &now, Until: &x.until}); err != nil {
		return err
	}
	counts := make(map[string]int)
	for _, section := range erasure.Sections() {
		behind := ""
		for {
			rows, err := x.page(ctx, section, behind)
			if err != nil {
				return err
			}
			counts[section.Type] += len(rows)
			if len(rows) < exportPage {
				break
			}
			behind = rows[len(rows)-1].Key
		}
	}
	if err := x.line(exportLine{Type: "end", Counts: counts}); err != nil {
		return err
	}
	return x.flush()
}

// page reads a page of a section and writes it to the client.
func (x *export) page(ctx context.Context, section erasure.Section, behind string) ([]erasure.Row, error) {
	rows, err := read(ctx, x.api.DB, func(ctx context.Context, tx storage.Tx) ([]erasure.Row, error) {
		return erasure.Export(ctx, tx, section, behind, exportPage)
	})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		line := exportLine{Type: section.Type, Row: row.Row}
		if section.Type == "upload" {
			if line.Links, err = x.links(ctx, row.Row); err != nil {
				return nil, err
			}
		}
		if err := x.line(line); err != nil {
			return nil, err
		}
	}
	return rows, x.flush()
}

// links returns the links of an upload that is completed and not deleted; nil for other uploads.
func (x *export) links(ctx context.Context, row json.RawMessage) (*exportLinkSet, error) {
	var u struct {
		Status     storage.Status `json:"status"`
		ObjectKey  *string        `json:"object_key"`
		DeletedAt  *string        `json:"deleted_at"`
		ID         uuid.UUID      `json:"id"`
		Tenant     uuid.UUID      `json:"tenant_id"`
		Project    string         `json:"project"`
		Thumbnails []struct {
			Size      int    `json:"size"`
			ObjectKey string `json:"object_key"`
		} `json:"thumbnails"`
	}
	if err := json.Unmarshal(row, &u); err != nil {
		return nil, fmt.Errorf("read an exported upload: %w", err)
	}
	if u.Status != storage.Completed || u.DeletedAt != nil || u.ObjectKey == nil {
		return nil, nil //nolint:nilnil // the upload has no links
	}
	keys := object.Keys{Tenant: u.Tenant, Project: u.Project, Upload: u.ID}
	original, err := x.api.Bucket.LinkFor(ctx, keys, *u.ObjectKey, exportLinks)
	if err != nil {
		return nil, err
	}
	set := &exportLinkSet{Original: original, Thumbnails: make(map[int]string, len(u.Thumbnails))}
	for _, d := range u.Thumbnails {
		if set.Thumbnails[d.Size], err = x.api.Bucket.LinkFor(ctx, keys, d.ObjectKey, exportLinks); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// line writes a line, which the client must accept in time.
func (x *export) line(l exportLine) error {
	if err := x.patience(); err != nil {
		return err
	}
	return json.NewEncoder(x.out).Encode(l)
}

func (x *export) flush() error {
	if err := x.patience(); err != nil {
		return err
	}
	if err := x.out.Flush(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return x.control.Flush()
}

func (x *export) patience() error {
	err := x.control.SetWriteDeadline(time.Now().Add(exportPatience))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
