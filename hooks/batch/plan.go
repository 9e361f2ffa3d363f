package batch

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// A plan is what a manifest asks for, compared with the uploads that there are.
type plan struct {
	create  []storage.NewUpload
	adopt   []storage.Upload // uploads in no batch
	uploads []CreatedUpload  // of each entry, in order
}

// plan compares what is wanted with the uploads that there are, and locks these.
func (*Service) plan(ctx context.Context, tx storage.Tx, batch storage.Batch, wanted []storage.NewUpload) (p plan, err error) {
	clientIDs := make([]string, len(wanted))
	for i, n := range wanted {
		clientIDs[i] = n.ClientID
	}
	var there map[string]storage.Upload
	if len(wanted) > 0 {
		if there, err = lockByClientIDs(ctx, tx, wanted[0].UserID, clientIDs); err != nil {
			return plan{}, err
		}
	}
	var wrong []EntryError
	p.uploads = make([]CreatedUpload, len(wanted))
	for i, n := range wanted {
		old, ok := there[n.ClientID]
		if !ok {
			p.create = append(p.create, n)
			p.uploads[i] = CreatedUpload{ID: n.ID, ClientID: n.ClientID, Status: storage.Pending}
			continue
		}
		if err := adoptable(ctx, tx, batch, n, old); err != nil {
			wrong = append(wrong, EntryError{Index: i, ClientID: n.ClientID, Err: err})
			continue
		}
		if old.BatchID == nil {
			p.adopt = append(p.adopt, old)
		}
		p.uploads[i] = CreatedUpload{ID: old.ID, ClientID: n.ClientID, Status: old.Status, Offset: hooks.ToldOffset(old), Existing: true}
	}
	if len(wrong) > 0 {
		return plan{}, &ManifestError{wrong}
	}
	return p, nil
}

// adoptable returns nil if the upload that has an entry's client id is the one that the entry announces, and may be in the
// batch. It declares the upload's length if that was deferred.
func adoptable(ctx context.Context, tx storage.Tx, batch storage.Batch, n storage.NewUpload, old storage.Upload) error {
	if old.Kind == storage.Final {
		n.Kind = storage.Final // how its bytes came does not matter
	}
	switch {
	case !hooks.Same(n, old):
		return hooks.ClientIDTaken()
	case old.Project != batch.Project:
		return tenant.Refuse(hooks.ErrClientIDTaken, "Your upload with this client_id is of the project %s. Use a new client_id for each file.", old.Project)
	case old.BatchID != nil && *old.BatchID != batch.ID:
		return tenant.Refuse(hooks.ErrClientIDTaken, "Your upload with this client_id belongs to the batch %s. Use a new client_id for each file.", old.BatchID)
	case old.SizeDeferred:
		return hooks.DeclareLength(ctx, tx, old, n.Size)
	}
	return nil
}

// carryOut makes the changes of the plan. The batch is locked last.
func (p plan) carryOut(ctx context.Context, tx storage.Tx, batch storage.Batch) error {
	taken, err := tx.CreateUploads(ctx, batch.ID, p.create)
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return p.explainTaken(taken)
	}
	var ids []uuid.UUID
	var users, clients []string
	for _, n := range p.create {
		ids, users, clients = append(ids, n.ID), append(users, n.UserID), append(clients, n.ClientID)
	}
	if err := replace(ctx, tx, batch.ID, ids, users, clients); err != nil {
		return err
	}
	if err := adopt(ctx, tx, batch.ID, batch.Label(), p.adopt); err != nil {
		return err
	}
	if !batch.Manifest {
		if err := declareManifest(ctx, tx, batch.ID, batch.Name); err != nil {
			return err
		}
	}
	if len(p.create)+len(p.adopt) == 0 {
		return nil // it had all of them, and may have ended
	}
	if err := tx.OpenBatch(ctx, batch.ID); err != nil {
		return err
	}
	if len(p.create) > 0 {
		return nil
	}
	return tx.SettleBatch(ctx, batch.ID) // all uploads that are new in it may have ended before
}

// explainTaken refuses entries whose client ids are those of uploads in projects that the token does not cover.
func (p plan) explainTaken(taken []uuid.UUID) error {
	var wrong []EntryError
	for i, f := range p.uploads {
		if slices.Contains(taken, f.ID) {
			wrong = append(wrong, EntryError{Index: i, ClientID: f.ClientID, Err: hooks.ClientIDTaken()})
		}
	}
	return &ManifestError{wrong}
}
