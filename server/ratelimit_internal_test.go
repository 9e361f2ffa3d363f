package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/tenant"
)

// A batch counts as what it creates, all or none; one that is larger than any burst passes when nothing was created
// for a while, and then nothing else does. An admin counts as a user of its own tenant wherever it acts.
func TestBatchesCountAsTheirUploads(t *testing.T) {
	t.Parallel()
	limits, err := NewLimits(Rates{Uploads: Rate{PerMinute: 1, Burst: 100}}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Parts: Parts{Limits: limits}}
	passes := func(who tenant.Identity, n int) bool {
		r := httptest.NewRequest(http.MethodPost, "/api/batches", http.NoBody)
		return s.limitUploads(echo.New().NewContext(r.WithContext(tenant.With(r.Context(), who)), httptest.NewRecorder()), n) == nil
	}
	ana, luz := tenant.Identity{Tenant: uuid.New(), User: "ana"}, tenant.Identity{Tenant: uuid.New(), User: "luz"}
	abroad := ana
	abroad.Tenant, abroad.Home = luz.Tenant, ana.Tenant
	for i, c := range []struct {
		who  tenant.Identity
		n    int
		want bool
	}{
		{ana, 60, true}, {ana, 50, false}, {ana, 40, true}, {ana, 1, false}, {abroad, 1, false},
		{luz, 1000, true}, {luz, 1, false},
	} {
		if got := passes(c.who, c.n); got != c.want {
			t.Errorf("%d: %d uploads of %s pass: %t", i, c.n, c.who.User, got)
		}
	}
}
