package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// manifestJSON announces a batch and its uploads.
type manifestJSON struct {
	Project  string              `json:"project"`
	Name     string              `json:"name"`
	ClientID string              `json:"client_id"`
	Uploads  []manifestEntryJSON `json:"uploads"`
}

type manifestEntryJSON struct {
	ClientID string `json:"client_id"`
	Filename string `json:"filename"`
	Size     int64  `json:"size"`
	Type     string `json:"type"`
	SHA256   string `json:"sha256"`
}

func entriesOf(js []manifestEntryJSON) []batch.Entry {
	return each(js, func(j manifestEntryJSON) batch.Entry { return batch.Entry(j) })
}

// CreateBatch creates a batch and all its uploads, whose addresses take HEAD and PATCH.
func (a *API) CreateBatch(c echo.Context) error {
	var m manifestJSON
	body, err := decodeJSON(c, &m) // a NUL character is told with its entry
	if err != nil {
		return err
	}
	key, err := a.countOnce(c, body, len(m.Uploads))
	if err != nil {
		return err
	}
	f, err := a.Batches.Create(c.Request().Context(), batch.Manifest{
		Project: m.Project, Name: m.Name, ClientID: m.ClientID, Uploads: entriesOf(m.Uploads),
	}, key)
	return a.answerFiled(c, f, err)
}

// AddToBatch creates more uploads in a batch.
func (a *API) AddToBatch(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	var m struct {
		Uploads []manifestEntryJSON `json:"uploads"`
	}
	body, err := decodeJSON(c, &m)
	if err != nil {
		return err
	}
	key, err := a.countOnce(c, body, len(m.Uploads))
	if err != nil {
		return err
	}
	f, err := a.Batches.Add(c.Request().Context(), id, entriesOf(m.Uploads), key)
	return a.answerFiled(c, f, err)
}

// countOnce reads the request's idempotency key, and counts the uploads that it creates against the user's rate. A request
// that repeats an answered one creates none, and is not limited.
func (a *API) countOnce(c echo.Context, body []byte, uploads int) (batch.IdempotencyKey, error) {
	r := c.Request()
	key, err := idempotencyKey(r, body)
	if err != nil {
		return key, err
	}
	if key.Key != "" {
		answered, err := read(r.Context(), a.DB, func(ctx context.Context, tx storage.Tx) (bool, error) { return batch.Answered(ctx, tx, key) })
		if err != nil || answered {
			return key, err
		}
	}
	return key, a.Limits.Uploads(c, uploads)
}

const maxIdempotencyKey = 255 // bytes

// idempotencyKey reads the Idempotency-Key of a request with that body (draft-ietf-httpapi-idempotency-key-header). The
// draft makes it a quoted string of structured fields (RFC 9651, section 3.3.3); most clients leave the quotes out.
func idempotencyKey(r *http.Request, body []byte) (batch.IdempotencyKey, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return batch.IdempotencyKey{}, nil
	}
	key := strings.TrimSpace(values[0])
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	printable := strings.IndexFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) < 0
	if len(values) > 1 || key == "" || len(key) > maxIdempotencyKey || !printable {
		return batch.IdempotencyKey{}, problem.BadRequest("Idempotency-Key must be there once, with 1 to %d printable ASCII characters, such as a UUID.", maxIdempotencyKey)
	}
	h := sha256.New()
	h.Write([]byte(r.Method + " " + r.URL.Path + "\n"))
	h.Write(body)
	return batch.IdempotencyKey{Key: key, Request: h.Sum(nil)}, nil
}

// filedJSON is the result of a manifest.
type filedJSON struct {
	Batch   storage.Batch     `json:"batch"`
	Uploads []filedUploadJSON `json:"uploads"` // in the order of the manifest
}

type filedUploadJSON struct {
	ClientID string         `json:"client_id"`
	ID       uuid.UUID      `json:"id"`
	URL      string         `json:"url"` // takes HEAD and PATCH (tus 1.0.0)
	Status   storage.Status `json:"status"`
	Offset   *int64         `json:"offset"`   // bytes that are safe; null while an upload that has all bytes is being finished
	Existing bool           `json:"existing"` // it was there before
}

func (a *API) answerFiled(c echo.Context, f batch.Created, err error) error {
	h := c.Response().Header()
	if errors.Is(err, batch.ErrKeyBusy) {
		h.Set("Retry-After", "1")
	}
	if err != nil {
		return err
	}
	base := a.Base(c.Request())
	j := filedJSON{Batch: f.Batch, Uploads: each(f.Uploads, func(u batch.CreatedUpload) filedUploadJSON {
		j := filedUploadJSON{
			ClientID: u.ClientID, ID: u.ID, URL: base + resource.UploadsPath + "/" + u.ID.String(), Status: u.Status, Existing: u.Existing,
		}
		if u.Offset != hooks.Untold {
			j.Offset = &u.Offset
		}
		return j
	})}
	if !f.Made {
		return answer(c, http.StatusOK, j)
	}
	h.Set("Location", base+"/api/batches/"+f.Batch.ID.String())
	return answer(c, http.StatusCreated, j)
}
