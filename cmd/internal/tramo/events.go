package tramo

import (
	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/server"
)

// eventSettings shape live state.
type eventSettings struct {
	ListenersPerUser   int `default:"20" help:"How many streams of live state a user may have open at this process."`
	ListenersPerTenant int `default:"500" help:"How many a tenant may have."`
}

// events returns the settings as package server takes them.
func (s eventSettings) events(m *cli.Mistakes) server.EventsConfig {
	c := server.DefaultEventsConfig()
	c.PerUser, c.PerTenant = s.ListenersPerUser, s.ListenersPerTenant
	m.Check("TRAMO_LISTENERS_PER_USER, TRAMO_LISTENERS_PER_TENANT", c.Validate())
	return c
}
