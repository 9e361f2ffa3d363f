package erasure_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// newDelayed has a delay of an hour before erasures of users and tenants start.
func newDelayed(t *testing.T) (*hookstest.Tenant, *erasure.Service) {
	t.Helper()
	s := hookstest.NewTenant(t)
	e := *s.Erasures
	e.Delay = time.Hour
	return s, &e
}

// due lets the delay of an erasure pass.
func due(t *testing.T, s *hookstest.Tenant, id uuid.UUID) {
	t.Helper()
	s.Exec(t, `update erasures set starts_at = now() where id = $1`, id)
}

func wantState(t *testing.T, got erasure.Erasure, err error, want erasure.State) {
	t.Helper()
	stack.Must(t, err)
	if got.State != want {
		t.Errorf("the erasure is %+v, want %s", got, want)
	}
}

// The erasure of a user changes nothing until its delay is over, and a manager can cancel it until then: nothing is removed,
// ever. Another one, whose delay passes, removes what the user had at its request, and cannot be cancelled any more.
func TestErasureOfUserIsDelayed(t *testing.T) {
	t.Parallel()
	s, e := newDelayed(t)
	s.Sound(t)
	objects, rows := objectsOf(t, s), left(t, s, "audit", "erasures", "river_job", "announcements")
	jefa := s.As(t.Context(), "jefa", tenant.Constructora)
	asked, err := e.Request(jefa, erasure.Request{User: "ana"})
	wantState(t, asked, err, erasure.Scheduled)
	if asked.StartsAt == nil || asked.StartsAt.Sub(asked.RequestedAt) != time.Hour {
		t.Errorf("requested at %s, it starts at %v", asked.RequestedAt, asked.StartsAt)
	}
	s.WantCount(t, 0, `select count(*) from river_job where kind = 'erase'`)
	unchanged := func() {
		t.Helper()
		stack.Must(t, s.Erase(t))
		wantSame(t, "the objects", objects, objectsOf(t, s))
		wantSame(t, "the rows", rows, left(t, s, "audit", "erasures", "river_job", "announcements"))
	}
	unchanged()
	_, err = e.Cancel(s.Ctx, asked.ID)
	stack.WantErr(t, err, tenant.ErrForbidden)
	_, err = e.Cancel(s.AddTenant(t).As(t.Context(), "jefa", tenant.Constructora), asked.ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = e.Approve(s.As(t.Context(), "op", tenant.Admin), asked.ID)
	stack.WantErr(t, err, erasure.ErrWrongState)
	got, err := e.Cancel(s.As(t.Context(), "jefe", tenant.Constructora), asked.ID)
	wantState(t, got, err, erasure.Cancelled)
	if got.CancelledBy == nil || *got.CancelledBy != "jefe" || got.EndedAt == nil {
		t.Errorf("the erasure is %+v", got)
	}
	due(t, s, asked.ID)
	unchanged()
	_, err = e.Cancel(jefa, asked.ID)
	stack.WantErr(t, err, erasure.ErrWrongState)

	asked, err = e.Request(jefa, erasure.Request{User: "ana"})
	wantState(t, asked, err, erasure.Scheduled)
	due(t, s, asked.ID)
	stack.Must(t, s.Erase(t))
	got, err = e.Find(jefa, asked.ID)
	wantState(t, got, err, erasure.Done)
	if left := objectsOf(t, s); len(left) != 0 {
		t.Errorf("S3 still has %v", left)
	}
	_, err = e.Cancel(jefa, asked.ID)
	stack.WantErr(t, err, erasure.ErrWrongState)
	for action, n := range map[string]int{"erasure.request": 2, "erasure.cancel": 1, "erasure.start": 1, "erasure.done": 1} {
		s.WantCount(t, n, `select count(*) from audit where action = $1 and outcome = 'done'`, action)
	}
	s.WantCount(t, 2, `select count(*) from announcements where type = 'erasure.scheduled'`)
	s.WantCount(t, 1, `select count(*) from announcements where type = 'erasure.cancelled' and detail ? 'starts_at'`)
	s.WantCount(t, 0, `select count(*) from announcements where detail::text like '%ana%'`)
}

// The erasure of a tenant is delayed from its approval on. The tenant works until it starts, and an admin can cancel it.
func TestErasureOfTenantIsDelayed(t *testing.T) {
	t.Parallel()
	s, e := newDelayed(t)
	one, two := s.As(t.Context(), "one", tenant.Admin), s.As(t.Context(), "two", tenant.Admin)
	ask := func() erasure.Erasure {
		t.Helper()
		asked, err := e.Request(one, erasure.Request{Tenant: true})
		wantState(t, asked, err, erasure.Waiting)
		if asked.StartsAt != nil {
			t.Errorf("it starts at %s without approval", asked.StartsAt)
		}
		asked, err = e.Approve(two, asked.ID)
		wantState(t, asked, err, erasure.Scheduled)
		if asked.StartsAt == nil || asked.ApprovedAt == nil || asked.StartsAt.Sub(*asked.ApprovedAt) != time.Hour {
			t.Errorf("approved at %v, it starts at %v", asked.ApprovedAt, asked.StartsAt)
		}
		stack.Must(t, s.Erase(t))
		s.Admit(t)
		return asked
	}
	first := ask()
	_, err := e.Cancel(s.As(t.Context(), "jefa", tenant.Constructora), first.ID)
	stack.WantErr(t, err, tenant.ErrForbidden)
	got, err := e.Cancel(one, first.ID)
	wantState(t, got, err, erasure.Cancelled)
	due(t, s, first.ID)
	stack.Must(t, s.Erase(t))
	s.Admit(t)

	second := ask()
	due(t, s, second.ID)
	stack.Must(t, s.Erase(t))
	got, err = e.Find(one, second.ID)
	wantState(t, got, err, erasure.Done)
	_, err = s.Admission.Admit(s.Ctx, hooks.Request{Size: 10})
	stack.WantErr(t, err, hooks.ErrNoTenant)
	s.WantCount(t, 1, `select count(*) from audit where action = 'erasure.start' and actor = 'eraser'`)
}

// A single upload is erased at once: whoever wants to think it over deletes it.
func TestErasureOfUploadIsNotDelayed(t *testing.T) {
	t.Parallel()
	s, e := newDelayed(t)
	id, _, _ := s.Complete(t)
	asked, err := e.Request(s.As(t.Context(), "jefa", tenant.Constructora), erasure.Request{Upload: id})
	wantState(t, asked, err, erasure.Running)
	stack.Must(t, s.Erase(t))
	s.WantCount(t, 0, `select count(*) from uploads`)
}

// A manager cancels at the moment at which a worker starts: either of them wins, and the other one leaves it at that.
func TestCancelAsItStarts(t *testing.T) {
	t.Parallel()
	s, e := newDelayed(t)
	jefa := s.As(t.Context(), "jefa", tenant.Constructora)
	for range 5 {
		s.Complete(t)
		objects := objectsOf(t, s)
		asked, err := e.Request(jefa, erasure.Request{User: "ana"})
		stack.Must(t, err)
		due(t, s, asked.ID)
		cancelled := make(chan error, 1)
		go func() {
			_, err := e.Cancel(jefa, asked.ID)
			cancelled <- err
		}()
		stack.Must(t, s.Erase(t))
		got, err := e.Find(jefa, asked.ID)
		stack.Must(t, err)
		if err := stack.Receive(t, "cancellation", cancelled); err == nil {
			wantState(t, got, nil, erasure.Cancelled)
			wantSame(t, "the objects", objects, objectsOf(t, s))
		} else {
			stack.WantErr(t, err, erasure.ErrWrongState)
			wantState(t, got, nil, erasure.Done)
		}
	}
}

func TestDelayIsNotNegative(t *testing.T) {
	t.Parallel()
	c := erasure.DefaultConfig()
	stack.Must(t, c.Validate())
	c.Delay = -time.Second
	if err := c.Validate(); err == nil {
		t.Error("a delay of -1s is accepted")
	}
	c.Delay = 0
	stack.Must(t, c.Validate())
}
