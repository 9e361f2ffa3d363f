package server

import (
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
