package hooks

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// enterBatch finds the batch that an upload's client names by its id, or by a name of the client's own, and makes it if
// there is none of that name. A partial upload belongs to none: its final one does.
func enterBatch(ctx context.Context, tx storage.Tx, n *storage.NewUpload) error {
	if n.Batch == "" || n.Kind == storage.Partial {
		return nil
	}
	named, _ := uuid.Parse(n.Batch) // the zero id, which no batch has, for another name
	b, err := tx.FindBatch(ctx, named, n.Project, n.Batch)
	switch {
	case errors.Is(err, storage.ErrNotFound) && named.Version() == 7:
		// Ids of batches are UUIDv7. A client that names one wants that one: it must not find its photos in another that
		// sprang up because of a slip. Nobody learns whether another tenant has it.
		return refuse(ErrNoBatch, "You have no batch %s. Name one by the id that POST /api/batches told, or by a name of your own, which is no UUIDv7.", named)
	case errors.Is(err, storage.ErrNotFound):
		made := storage.NewBatch{Project: n.Project, Name: n.Batch, ClientID: n.Batch, UserID: n.UserID}
		if made.ID, err = uuid.NewV7(); err != nil {
			return err
		}
		b, _, err = tx.MakeBatch(ctx, made)
	}
	switch {
	case err != nil:
		return err
	case b.Project != n.Project:
		return refuse(ErrOtherProject, "The batch %s is of the project %s. Name that as the upload's project, or another batch.", b.ID, b.Project)
	case b.CancelledAt != nil:
		return storage.ErrBatchCancelled
	}
	n.BatchID, n.Batch = b.ID, b.Label()
	return nil
}

// A plan is what a manifest comes to.
type plan struct {
	create []storage.NewUpload
	adopt  []storage.Upload // that are there, in no batch
	filed  []FiledUpload    // of each entry, in order
}

// plan compares what is wanted with what is there, and locks it.
func (b *Batches) plan(ctx context.Context, tx storage.Tx, batch storage.Batch, wanted []storage.NewUpload) (p plan, err error) {
	clientIDs := make([]string, len(wanted))
	for i, n := range wanted {
		clientIDs[i] = n.ClientID
	}
	var there map[string]storage.Upload
	if len(wanted) > 0 {
		if there, err = tx.UploadsByClientIDs(ctx, wanted[0].UserID, clientIDs); err != nil {
			return plan{}, err
		}
	}
	var wrong []EntryError
	p.filed = make([]FiledUpload, len(wanted))
	for i, n := range wanted {
		old, ok := there[n.ClientID]
		if !ok {
			p.create = append(p.create, n)
			p.filed[i] = FiledUpload{ID: n.ID, ClientID: n.ClientID, Status: storage.Pending}
			continue
		}
		if err := adoptable(ctx, tx, batch, n, old); err != nil {
			wrong = append(wrong, EntryError{Index: i, ClientID: n.ClientID, Err: err})
			continue
		}
		if old.BatchID == nil {
			p.adopt = append(p.adopt, old)
		}
		p.filed[i] = FiledUpload{ID: old.ID, ClientID: n.ClientID, Status: old.Status, Offset: toldOffset(old), Existing: true}
	}
	if len(wrong) > 0 {
		return plan{}, &ManifestError{wrong}
	}
	return p, nil
}

// adoptable returns nil if the upload that is there under an entry's client id is what the entry says, and may belong to
// the batch. An upload whose length nobody knew has it then.
func adoptable(ctx context.Context, tx storage.Tx, batch storage.Batch, n storage.NewUpload, old storage.Upload) error {
	if old.Kind == storage.Final {
		n.Kind = storage.Final // how its bytes came does not matter
	}
	switch {
	case !same(n, old):
		return errClientIDTaken()
	case old.Project != batch.Project:
		return refuse(ErrClientIDTaken, "Your upload with this client_id is of the project %s. Use a new client_id for each file.", old.Project)
	case old.BatchID != nil && *old.BatchID != batch.ID:
		return refuse(ErrClientIDTaken, "Your upload with this client_id belongs to the batch %s. Use a new client_id for each file.", old.BatchID)
	case old.SizeDeferred:
		return explainLength(tx.DeclareLength(ctx, old.ID, storage.NoFence, n.Size))
	}
	return nil
}

// carryOut makes the plan true. The batch is locked last.
func (p plan) carryOut(ctx context.Context, tx storage.Tx, batch storage.Batch) error {
	taken, err := tx.CreateUploads(ctx, batch.ID, p.create)
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return p.explainTaken(taken)
	}
	if err := tx.AdoptUploads(ctx, batch.ID, batch.Label(), p.adopt); err != nil {
		return err
	}
	if !batch.Manifest {
		if err := tx.DeclareManifest(ctx, batch.ID, batch.Name); err != nil {
			return err
		}
	}
	if len(p.create)+len(p.adopt) == 0 {
		return nil // it has all of them, and is told of once
	}
	if err := tx.OpenBatch(ctx, batch.ID); err != nil {
		return err
	}
	if len(p.create) > 0 {
		return nil
	}
	// All that is new to it may have ended before.
	if err := tx.SettleBatch(ctx, batch.ID); err != nil && !errors.Is(err, storage.ErrWrongStatus) {
		return err
	}
	return nil
}

// explainTaken tells of entries whose client ids are those of uploads that this user does not see: they are of projects
// that the token does not cover.
func (p plan) explainTaken(taken []uuid.UUID) error {
	var wrong []EntryError
	for i, f := range p.filed {
		if slices.Contains(taken, f.ID) {
			wrong = append(wrong, EntryError{Index: i, ClientID: f.ClientID, Err: errClientIDTaken()})
		}
	}
	return &ManifestError{wrong}
}

func errClientIDTaken() error {
	return refuse(ErrClientIDTaken,
		"Another upload of yours has this client_id with a different size, name or sha256. Use a new client_id for each file.")
}
