package api

import (
	"context"
	"net/http"
	"time"
	_ "time/tzdata" // clients name the zone of a site; the machine may have no database of zones

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// batchJSON is a batch with the uploads that need somebody's attention.
type batchJSON struct {
	resource.CountedBatch
	Stuck  troubleJSON `json:"stuck"`
	Failed troubleJSON `json:"failed"`
}

// troubleJSON has the first of Count uploads.
type troubleJSON struct {
	Count int64               `json:"count"`
	Items []troubleUploadJSON `json:"items"`
}

// maxTrouble is how many uploads a list of trouble has at most.
const maxTrouble = 100

// troubleUploadJSON is an upload that needs somebody's attention.
type troubleUploadJSON struct {
	ID         uuid.UUID         `json:"id"`
	ClientID   *string           `json:"client_id"`
	UserID     string            `json:"user_id"`
	Filename   *string           `json:"filename"`
	Status     storage.Status    `json:"status"`
	Offset     int64             `json:"offset"`
	Size       *int64            `json:"size"`
	LastByteAt time.Time         `json:"last_byte_at"` // when the last byte came, or the upload was begun
	Failure    *resource.Failure `json:"failure"`
}

func describeTrouble(u storage.Upload) troubleUploadJSON {
	j := troubleUploadJSON{
		ID: u.ID, ClientID: u.ClientID, UserID: u.UserID, Filename: storage.Shown(u.Filename), Status: u.Status, Offset: u.Received,
		LastByteAt: u.TouchedAt, Failure: resource.FailureOf(u),
	}
	if !u.SizeDeferred {
		j.Size = &u.Size
	}
	return j
}

// GetBatch answers with a batch's state.
func (a *API) GetBatch(c echo.Context) error { return answerID(c, http.StatusOK, a.readBatch) }

func (a *API) readBatch(ctx context.Context, id uuid.UUID) (batchJSON, error) {
	return read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) (j batchJSON, err error) {
		b, err := batch.Find(ctx, tx, id)
		if err != nil {
			return j, err
		}
		totals, err := batch.Totals(ctx, tx, id)
		if err != nil {
			return j, err
		}
		stuck, nStuck, err := batch.Stuck(ctx, tx, id, a.Batches.StalledAfter, maxTrouble)
		if err != nil {
			return j, err
		}
		failed, nFailed, err := batch.Failed(ctx, tx, id, maxTrouble)
		return batchJSON{
			CountedBatch: resource.CountedBatchOf(b, totals[id]),
			Stuck:        troubleJSON{nStuck, each(stuck, describeTrouble)},
			Failed:       troubleJSON{nFailed, each(failed, describeTrouble)},
		}, err
	})
}

// ListBatches answers with a page of batches, newest first.
func (a *API) ListBatches(c echo.Context) error {
	p, err := parseBatchFilter(c)
	if err != nil {
		return err
	}
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]resource.CountedBatch, error) {
		p.Before, p.Limit = before, limit
		return read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) ([]resource.CountedBatch, error) {
			bs, err := batch.List(ctx, tx, p)
			if err != nil {
				return nil, err
			}
			totals, err := batch.Totals(ctx, tx, each(bs, func(b storage.Batch) uuid.UUID { return b.ID })...)
			return each(bs, func(b storage.Batch) resource.CountedBatch { return resource.CountedBatchOf(b, totals[b.ID]) }), err
		})
	}, func(b resource.CountedBatch) uuid.UUID { return b.ID })
}

func parseBatchFilter(c echo.Context) (p batch.Page, err error) {
	p.Project = c.QueryParam("project")
	if p.State = storage.BatchState(c.QueryParam("state")); p.State != "" && !p.State.Known() {
		return p, problem.BadRequest("state must be one of a batch's: open, completed, failed or cancelled.")
	}
	p.From, p.To, err = parseDay(c.QueryParam("day"), c.QueryParam("tz"))
	return p, err
}

// parseDay returns when a day begins and ends in a zone of the IANA database, UTC if none is named. A day on which clocks
// change has 23 or 25 hours.
func parseDay(day, zone string) (from, to time.Time, err error) {
	if zone == "Local" { // Go's name for the zone of this machine
		zone = "?"
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return from, to, problem.BadRequest("tz must be a time zone of the IANA database, such as America/Bogota.")
	}
	if day == "" {
		return from, to, nil
	}
	if from, err = time.ParseInLocation(time.DateOnly, day, loc); err != nil {
		return from, to, problem.BadRequest("day must be a day such as 2026-11-22.")
	}
	return from, from.AddDate(0, 0, 1), nil
}

// RenameBatch changes a batch's name, and answers with its state.
func (a *API) RenameBatch(c echo.Context) error {
	var body struct {
		Name string `json:"name"`
	}
	if _, err := readJSON(c, &body); err != nil {
		return err
	}
	return a.answerBatch(c, func(ctx context.Context, id uuid.UUID) error { return a.Batches.Rename(ctx, id, body.Name) })
}

// CancelBatch cancels a batch with its unfinished uploads, and answers with its state.
func (a *API) CancelBatch(c echo.Context) error {
	return a.answerBatch(c, func(ctx context.Context, id uuid.UUID) error {
		_, err := a.Batches.Cancel(ctx, id)
		return err
	})
}

// answerBatch does something with a batch and answers with its state.
func (a *API) answerBatch(c echo.Context, do func(context.Context, uuid.UUID) error) error {
	return answerID(c, http.StatusOK, func(ctx context.Context, id uuid.UUID) (batchJSON, error) {
		if err := do(ctx, id); err != nil {
			return batchJSON{}, err
		}
		return a.readBatch(ctx, id)
	})
}

// retriedJSON is the result of a retry for the failed and expired uploads of a batch.
type retriedJSON struct {
	Retried   []uuid.UUID         `json:"retried"`
	SendAgain []troubleUploadJSON `json:"send_again"`
	Refused   []troubleUploadJSON `json:"refused"`
}

// RetryBatch processes the failed uploads of a batch again whose bytes are stored and not infected.
func (a *API) RetryBatch(c echo.Context) error {
	return answerID(c, http.StatusOK, func(ctx context.Context, id uuid.UUID) (retriedJSON, error) {
		r, err := a.Batches.Retry(ctx, id)
		return retriedJSON{
			Retried:   each(r.Retried, func(u storage.Upload) uuid.UUID { return u.ID }),
			SendAgain: each(r.SendAgain, describeTrouble),
			Refused:   each(r.Refused, describeTrouble),
		}, err
	})
}
