package server

import (
	"errors"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// manifestJSON is what a client says of a batch.
type manifestJSON struct {
	Project  string                `json:"project"`
	Name     string                `json:"name"`
	ClientID string                `json:"client_id"`
	Uploads  []entryOfManifestJSON `json:"uploads"`
}

type entryOfManifestJSON struct {
	ClientID string `json:"client_id"`
	Name     string `json:"name"` // of the file
	Size     int64  `json:"size"`
	Type     string `json:"type"`
	SHA256   string `json:"sha256"`
}

func entriesOf(js []entryOfManifestJSON) []hooks.ManifestEntry {
	entries := make([]hooks.ManifestEntry, len(js))
	for i, j := range js {
		entries[i] = hooks.ManifestEntry{ClientID: j.ClientID, Filename: j.Name, Size: j.Size, Type: j.Type, SHA256: j.SHA256}
	}
	return entries
}

// createBatch makes a batch and all its uploads, whose addresses take HEAD and PATCH.
func (s *Server) createBatch(c echo.Context) error {
	var m manifestJSON
	body, err := readJSON(c, &m)
	if err != nil {
		return err
	}
	o, err := s.onceFor(c, body, len(m.Uploads))
	if err != nil {
		return err
	}
	f, err := s.Batches.Create(c.Request().Context(), hooks.Manifest{
		Project: m.Project, Name: m.Name, ClientID: m.ClientID, Uploads: entriesOf(m.Uploads),
	}, o)
	if err != nil {
		return soon(c, err)
	}
	return s.tellFiled(c, f)
}

// onceFor reads the request's idempotency key, and counts the uploads that it creates. Who has lost the answer and asks
// again creates none, and is not held up for it.
func (s *Server) onceFor(c echo.Context, body []byte, uploads int) (storage.Once, error) {
	r := c.Request()
	o, err := once(r, body)
	if err != nil {
		return o, err
	}
	var answered bool
	if o.Key != "" {
		err = s.DB.InTenant(r.Context(), func(tx storage.Tx) (err error) {
			answered, err = tx.Answered(r.Context(), o)
			return err
		})
	}
	if err != nil || answered {
		return o, err
	}
	return o, s.limitUploads(c, uploads)
}

func (s *Server) addToBatch(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	var m struct {
		Uploads []entryOfManifestJSON `json:"uploads"`
	}
	body, err := readJSON(c, &m)
	if err != nil {
		return err
	}
	o, err := s.onceFor(c, body, len(m.Uploads))
	if err != nil {
		return err
	}
	f, err := s.Batches.Add(c.Request().Context(), id, entriesOf(m.Uploads), o)
	if err != nil {
		return soon(c, err)
	}
	return s.tellFiled(c, f)
}

// soon says when to try again, if that is all that there is to do.
func soon(c echo.Context, err error) error {
	if errors.Is(err, hooks.ErrKeyBusy) {
		c.Response().Header().Set("Retry-After", "1")
	}
	return err
}

// filedJSON is what became of a manifest.
type filedJSON struct {
	Batch   resource.Batch    `json:"batch"`
	Uploads []filedUploadJSON `json:"uploads"` // in the order of the manifest
}

type filedUploadJSON struct {
	ClientID string         `json:"client_id"`
	ID       uuid.UUID      `json:"id"`
	URL      string         `json:"url"` // takes HEAD and PATCH (tus 1.0.0)
	Status   storage.Status `json:"status"`
	Offset   *int64         `json:"offset"`   // bytes that are safe; null while an upload that has all is being finished
	Existing bool           `json:"existing"` // it was there before
}

func (s *Server) tellFiled(c echo.Context, f hooks.Filed) error {
	answer := filedJSON{Batch: resource.BatchOf(f.Batch), Uploads: make([]filedUploadJSON, len(f.Uploads))}
	base := s.baseOf(c.Request())
	for i, u := range f.Uploads {
		answer.Uploads[i] = filedUploadJSON{
			ClientID: u.ClientID, ID: u.ID, URL: base + UploadsPath + "/" + u.ID.String(), Status: u.Status, Existing: u.Existing,
		}
		if u.Offset != hooks.Untold {
			answer.Uploads[i].Offset = &f.Uploads[i].Offset
		}
	}
	status := http.StatusOK
	if f.Made {
		status = http.StatusCreated
		c.Response().Header().Set("Location", base+BatchesPath+"/"+f.Batch.ID.String())
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(status, answer)
}
