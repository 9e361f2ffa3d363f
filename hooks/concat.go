package hooks

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// MaxPartials is how many partial uploads a final one may have.
const MaxPartials = 1000

// parsePartials parses the ids of partial uploads. An id of another form does not exist.
func parsePartials(n *storage.NewUpload, ids []string) error {
	if len(ids) > MaxPartials {
		return refuse(ErrNotPartial, "Upload-Concat names %d partial uploads; the most is %d.", len(ids), MaxPartials)
	}
	seen := make(map[uuid.UUID]bool, len(ids))
	for _, s := range ids {
		id, err := uuid.Parse(s)
		if err != nil {
			return storage.ErrNotFound
		}
		if seen[id] {
			return refuse(ErrNotPartial, "Upload-Concat names the partial upload %s twice.", id)
		}
		seen[id] = true
		n.Partials = append(n.Partials, id)
	}
	return nil
}

// gather checks that a final upload may consist of its partial ones, and adds up their sizes. If another final upload
// has all of them in the same order, this creation repeats it, and gather returns its id.
func (a *Admission) gather(ctx context.Context, tx storage.Tx, n *storage.NewUpload) (old uuid.UUID, err error) {
	partials, err := tx.LockPartials(ctx, n.Partials)
	if err != nil {
		return uuid.Nil, err
	}
	if len(partials) < len(n.Partials) || slices.ContainsFunc(partials, func(p storage.Upload) bool { return p.UserID != n.UserID }) {
		return uuid.Nil, storage.ErrNotFound
	}
	for _, p := range partials {
		if p.FinalID != nil {
			return a.taken(ctx, tx, n, *p.FinalID)
		}
		if err := checkPartial(p); err != nil {
			return uuid.Nil, err
		}
		n.Size += p.Size
	}
	return uuid.Nil, a.Policy.checkSize(n.Size)
}

// taken returns the final upload that has taken the partial ones, if it is the same as the new one.
func (a *Admission) taken(ctx context.Context, tx storage.Tx, n *storage.NewUpload, final uuid.UUID) (uuid.UUID, error) {
	f, err := tx.Upload(ctx, final)
	if err != nil {
		return uuid.Nil, err
	}
	if !slices.Equal(f.Partials, n.Partials) {
		return uuid.Nil, refuse(ErrPartialTaken, "A partial upload can become part of one upload only, and one of these has. Send its bytes again.")
	}
	return final, nil
}

func checkPartial(p storage.Upload) error {
	switch {
	case p.Kind != storage.Partial:
		return refuse(ErrNotPartial, "The upload %s was not created with Upload-Concat: partial.", p.ID)
	case p.Status.Receiving() && p.UploadedAt == nil:
		return refuse(ErrPartialOpen, "The partial upload %s is not complete. Ask for its offset with HEAD and send the rest.", p.ID)
	case p.Status != storage.Uploading:
		return refuse(ErrNotPartial, "The partial upload %s was cancelled or has failed. Send its bytes again.", p.ID)
	}
	return nil
}
