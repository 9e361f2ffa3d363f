package ratelimit

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

// A batch counts as its uploads, all or none. A batch above the burst passes if the whole burst is left, and uses it up.
// An admin counts as a user of its own tenant, whichever tenant it enters.
func TestBatchesCountAsTheirUploads(t *testing.T) {
	t.Parallel()
	limits, err := New(Rates{Uploads: Rate{PerMinute: 1, Burst: 100}}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	passes := func(who tenant.Identity, n int) bool {
		r := httptest.NewRequest(http.MethodPost, "/api/batches", http.NoBody)
		return limits.Uploads(echo.New().NewContext(r.WithContext(tenant.With(r.Context(), who)), httptest.NewRecorder()), n) == nil
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

// A limit is shared by an IPv4 address, and by a customer's IPv6 network.
func TestAddressKey(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"203.0.113.9":          "203.0.113.9",
		"::ffff:203.0.113.9":   "203.0.113.9",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::":       "2001:db8:1:2::/64",
		"2001:db8:1:3::":       "2001:db8:1:3::/64",
		"fe80::1%eth0":         "fe80::/64",
		"":                     "",
	} {
		if got := AddressKey(address); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
}
