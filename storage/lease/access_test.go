package lease_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// Who may not write an upload is told so at once, by the holder's replica and by any other, whether or not somebody
// holds it, and the holder hears nothing. Who may gets it as ever.
func TestLeaseAsksWhoMayWrite(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	here, there := newReplica(t, d, calmly), newReplica(t, d, calmly)
	id, free := d.Create(t, ctx, 1), d.Create(t, ctx, 1)
	as := func(change func(*tenant.Identity)) context.Context {
		who, err := tenant.From(ctx)
		stack.Must(t, err)
		change(&who)
		return tenant.With(t.Context(), who)
	}
	refused := map[string]struct {
		ctx  context.Context
		want error
	}{
		"another user":            {as(func(id *tenant.Identity) { id.User = "pedro" }), storage.ErrNotYours},
		"nobody in particular":    {as(func(id *tenant.Identity) { id.User = "" }), storage.ErrNotYours},
		"an investor of the name": {as(func(id *tenant.Identity) { id.Role = tenant.Inversionista }), storage.ErrNotFound}, // who sees what is completed
		"no role":                 {as(func(id *tenant.Identity) { id.User, id.Role = "pedro", "" }), storage.ErrNotYours},
		"outside the project":     {as(func(id *tenant.Identity) { id.Projects = []string{"puente"} }), storage.ErrNotFound},
		"a manager outside of it": {as(func(id *tenant.Identity) { id.Role, id.Projects = tenant.Constructora, []string{"puente"} }), storage.ErrNotFound},
		"another tenant":          {as(func(id *tenant.Identity) { id.Tenant = storagetest.TenantOf(t, d.NewTenant(t, 1)) }), storage.ErrNotFound},
		"another tenant's admin": {as(func(id *tenant.Identity) {
			id.Tenant, id.Role = storagetest.TenantOf(t, d.NewTenant(t, 1)), tenant.Admin
		}), storage.ErrNotFound},
	}
	asked := make(flag, 1)
	mine := here.acquire(t, ctx, id, asked.raise)
	for name, c := range refused {
		for where, r := range map[string]*replica{"the holder's": here, "another": there} {
			for what, upload := range map[string]uuid.UUID{"held": id, "free": free} {
				for how, take := range map[string]func(context.Context, uuid.UUID, func()) (*lease.Lease, error){
					"acquires": r.Acquire, "tries": r.Try,
				} {
					limited, cancel := context.WithTimeout(c.ctx, stack.Patience)
					_, err := take(limited, upload, func() {})
					cancel()
					if how == "tries" && what == "held" && where == "the holder's" {
						continue // the answer is that it is held; only our own programs call Try
					}
					if stack.WantErr(t, err, c.want); t.Failed() {
						t.Fatalf("%s %s what is %s on %s replica", name, how, what, where)
					}
				}
			}
		}
	}
	// An investor sees a completed upload, and may not take its lease either.
	d.Exec(t, `update uploads set status = 'completed' where id = $1`, free)
	_, err := there.Acquire(refused["an investor of the name"].ctx, free, func() {})
	stack.WantErr(t, err, storage.ErrNotYours)
	// The first request of which the holder is notified is that of a manager, on the other replica.
	select {
	case <-asked:
		t.Fatal("the holder was disturbed by who may not write")
	default:
	}
	marta := as(func(id *tenant.Identity) { id.User, id.Role = "marta", tenant.Constructora })
	next := there.acquiring(t, marta, id)
	stack.Receive(t, "the manager's request", asked)
	stack.Must(t, mine.Release(t.Context()))
	taken := stack.Receive(t, "the manager's lease", next)
	wantAfter(t, taken, mine)
	stack.Must(t, taken.Release(t.Context()))
}
