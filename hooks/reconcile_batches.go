package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// labels finds uploads that the previous release, which knows no batches, left with nothing but a label.
func (r *Reconciler) labels(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		for l, err := range r.DB.UnfiledLabels(ctx) {
			f := Finding{Kind: KindUnfiledUploads, Tenant: l.Tenant, Detail: fmt.Sprintf("batch %q of project %s", l.Name, l.Project), label: l}
			if !yield(f, err) {
				return
			}
		}
	}
}

func (r *Reconciler) fileLabel(ctx context.Context, f Finding) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	return r.DB.InTenant(ctx, func(tx storage.Tx) error {
		return tx.FileLabel(ctx, storage.NewBatch{
			ID: id, Project: f.label.Project, Name: f.label.Name, ClientID: f.label.Name, UserID: tx.Who.User,
		})
	})
}

// unsettled finds batches that nobody ended. Whoever ends the last upload of a batch ends it in the same transaction, so
// that only the previous release leaves one.
func (r *Reconciler) unsettled(ctx context.Context) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		for ref, err := range r.DB.UnsettledBatches(ctx) {
			if !yield(Finding{Kind: KindUnsettledBatch, Tenant: ref.Tenant, Batch: ref.Batch}, err) {
				return
			}
		}
	}
}

func (r *Reconciler) settleBatch(ctx context.Context, f Finding) error {
	return r.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.SettleBatch(ctx, f.Batch) })
}

// forgetAnswers sweeps what was kept for requests that are repeated. It finds nothing that should not be.
func (r *Reconciler) forgetAnswers(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	_, err := r.DB.ForgetAnswers(ctx)
	return err
}
