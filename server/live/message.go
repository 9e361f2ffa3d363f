package live

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// Events, which docs/reference/events.md explains to clients.
const (
	eventUpload       = "upload"       // an upload, as GET answers it
	eventBatch        = "batch"        // a batch, as GET answers it
	eventAnnouncement = "announcement" // an event that is not the state of an upload or batch
	eventReset        = "reset"        // what follows does not continue what was sent before
	eventReady        = "ready"        // the snapshot is complete; changes follow
	eventEnd          = "end"          // the stream ends, with the reason
)

// A message is shared by many listeners and is not changed once it is offered.
type message struct {
	event string
	id    string // where a client resumes; "" for the id of the message before
	data  []byte // JSON in one line

	upload *resource.Upload // whose thumbnails each listener is sent with links of its own; nil for none

	// Who it concerns.
	subject     uuid.UUID // an upload or a batch; the zero id for none
	version     version
	moved       time.Time // when it changed
	batch       uuid.UUID // the zero id for none
	label       string    // of an upload's batch, "" for none
	project     string
	user        string
	tenantWide  bool // it is about the whole tenant
	forManagers bool // and about its webhook endpoints, which only managers of all projects see
}

func newMessage(event string, data any) (*message, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", event, err)
	}
	return &message{event: event, data: b}, nil
}

// readUploads makes messages of the uploads that read returns.
func (h *Hub) readUploads(ctx context.Context, read func(context.Context, storage.Tx) ([]storage.Upload, error)) ([]*message, error) {
	us, items, err := h.Reader.Unlinked(ctx, read)
	if err != nil {
		return nil, err
	}
	ms := make([]*message, len(us))
	for i, u := range us {
		if ms[i], err = newMessage(eventUpload, items[i]); err != nil {
			return nil, err
		}
		if len(items[i].Thumbnails) > 0 {
			ms[i].upload = &items[i]
		}
		ms[i].subject, ms[i].version, ms[i].project, ms[i].user = u.ID, versionOf(u), u.Project, u.UserID
		if ms[i].moved = u.UpdatedAt; u.Status.Receiving() && u.TouchedAt.After(u.UpdatedAt) {
			ms[i].moved = u.TouchedAt
		}
		ms[i].batch, ms[i].label = orZero(u.BatchID), orZero(u.Batch)
	}
	return ms, nil
}

// batchMessages makes messages of batches, with their totals.
func batchMessages(ctx context.Context, tx storage.Tx, bs []storage.Batch) ([]*message, error) {
	if len(bs) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(bs))
	for i, b := range bs {
		ids[i] = b.ID
	}
	totals, err := batch.Totals(ctx, tx, ids...)
	if err != nil {
		return nil, err
	}
	ms := make([]*message, len(bs))
	for i, b := range bs {
		if ms[i], err = newMessage(eventBatch, resource.CountedBatchOf(b, totals[b.ID])); err != nil {
			return nil, err
		}
		ms[i].batch, ms[i].label, ms[i].project, ms[i].user = b.ID, b.Label(), b.Project, b.UserID
	}
	return ms, nil
}

// announcementMessages leaves out announcements whose upload may not be seen.
func announcementMessages(as []announced) ([]*message, error) {
	var ms []*message
	for _, a := range as {
		m, err := newMessage(eventAnnouncement, a)
		if err != nil {
			return nil, err
		}
		switch {
		case a.Project != nil:
			m.project = *a.Project
		case a.UploadID != nil || a.BatchID != nil:
			continue
		default:
			m.tenantWide, m.forManagers = true, strings.HasPrefix(a.Type, "webhook.") || strings.HasPrefix(a.Type, "erasure.")
		}
		m.subject, m.batch, m.label, m.user = orZero(a.UploadID), orZero(a.BatchID), orZero(a.Batch), orZero(a.User)
		ms = append(ms, m)
	}
	return ms, nil
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
