package server

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/tramo/tramo/server/api"
)

// Routes are those of the table, as METHOD /path.
func (s *Server) Routes() []string {
	var all []string
	for _, r := range s.routes(handlers{API: &api.API{}}) {
		for method := range strings.FieldsSeq(r.methods) {
			all = append(all, method+" "+r.path)
		}
	}
	slices.Sort(all)
	return all
}

// ServeBehind is serve, for tests that look at each answer.
func (s *Server) ServeBehind(ctx context.Context, l *net.TCPListener, behind http.Handler) error {
	return s.serve(ctx, l, behind)
}
