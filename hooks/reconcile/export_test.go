package reconcile

import (
	"context"
	"errors"
)

// BothUnguarded makes both passes beside any others.
func (r *Reconciler) BothUnguarded(ctx context.Context) error {
	return errors.Join(r.pass(ctx, "quick", r.quick(ctx)), r.pass(ctx, "inventory", r.inventory(ctx)))
}

// Between finds all that both passes find, then calls meanwhile, then treats it.
func (r *Reconciler) Between(ctx context.Context, meanwhile func() error) error {
	checks := append(r.quick(ctx), r.inventory(ctx)...)
	for i, c := range checks {
		if c.find == nil {
			continue
		}
		var found []Finding
		for f, err := range c.find {
			if err != nil {
				return err
			}
			found = append(found, f)
		}
		checks[i].find = func(yield func(Finding, error) bool) { yieldAll(yield, found) }
	}
	if err := meanwhile(); err != nil {
		return err
	}
	return r.pass(ctx, "both", checks)
}

// Kinds are all that the table has.
func (r *Reconciler) Kinds(ctx context.Context) (all []Kind) {
	for _, c := range append(r.quick(ctx), r.inventory(ctx)...) {
		all = append(all, c.kind)
	}
	return all
}

// AllClaims yields the claims of all uploads, in the order of their keys.
var AllClaims = allClaims
