package tramo

import (
	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/server"
)

// httpSettings say who may use the API from where.
type httpSettings struct {
	CORSOrigins []string `name:"cors-origins" env:"TRAMO_CORS_ORIGINS" placeholder:"ORIGIN" help:"Origins whose pages may use the API from a browser, such as https://app.example.com, with commas between them; * for all. Default: this server's own only."`
}

// apply completes c.
func (h httpSettings) apply(c *server.Config, m *cli.Mistakes) {
	c.CORSOrigins = h.CORSOrigins
	m.Check("TRAMO_CORS_ORIGINS", server.ValidateOrigins(h.CORSOrigins))
}
