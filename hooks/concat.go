package hooks

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// MaxPartials is how many partial uploads a final one may have.
const MaxPartials = 1000

// parsePartials parses the ids of partial uploads. An id of another form does not exist.
func parsePartials(n *storage.NewUpload, ids []string) error {
	if len(ids) > MaxPartials {
		return tenant.Refuse(ErrNotPartial, "Upload-Concat names %d partial uploads; the most is %d.", len(ids), MaxPartials)
	}
	seen := make(map[uuid.UUID]bool, len(ids))
	for _, s := range ids {
		id, err := uuid.Parse(s)
		if err != nil {
			return storage.ErrNotFound
		}
		if seen[id] {
			return tenant.Refuse(ErrNotPartial, "Upload-Concat names the partial upload %s twice.", id)
		}
		seen[id] = true
		n.Partials = append(n.Partials, id)
	}
	return nil
}

// checkPartials checks that a final upload may consist of its partial ones, and adds up their sizes. If there is a final upload
// of the same partial ones in the same order, this creation repeats its creation, and checkPartials returns its id.
func (p Policy) checkPartials(ctx context.Context, tx storage.Tx, n *storage.NewUpload) (existing uuid.UUID, err error) {
	partials, err := tx.LockPartials(ctx, n.Partials)
	if err != nil {
		return uuid.Nil, err
	}
	if len(partials) < len(n.Partials) || slices.ContainsFunc(partials, func(u storage.Upload) bool { return u.UserID != n.UserID }) {
		return uuid.Nil, storage.ErrNotFound
	}
	for _, u := range partials {
		if u.FinalID != nil {
			final, err := tx.Upload(ctx, *u.FinalID)
			if err == nil && !slices.Equal(final.Partials, n.Partials) {
				err = tenant.Refuse(ErrPartialTaken, "A partial upload can become part of one upload only, and one of these has. Send its bytes again.")
			}
			return final.ID, err
		}
		if err := checkPartial(u); err != nil {
			return uuid.Nil, err
		}
		n.Size += u.Size
	}
	return uuid.Nil, p.checkSize(n.Size)
}

func checkPartial(p storage.Upload) error {
	switch {
	case p.Kind != storage.Partial:
		return tenant.Refuse(ErrNotPartial, "The upload %s was not created with Upload-Concat: partial.", p.ID)
	case p.Status.Receiving() && p.UploadedAt == nil:
		return tenant.Refuse(ErrPartialOpen, "The partial upload %s is not complete. Ask for its offset with HEAD and send the rest.", p.ID)
	case p.Status != storage.Uploading:
		return tenant.Refuse(ErrNotPartial, "The partial upload %s was cancelled or has failed. Send its bytes again.", p.ID)
	}
	return nil
}
