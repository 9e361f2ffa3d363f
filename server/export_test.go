package server

import "slices"

// Routes are the server's, as METHOD /path.
func (s *Server) Routes() []string {
	var all []string
	for _, r := range s.echo.Routes() {
		all = append(all, r.Method+" "+r.Path)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ProblemTypes are those that a client can meet.
func ProblemTypes() map[string]bool {
	types := map[string]bool{internalProblem.Type: true, problemOf("tus", 0, "", "").Type: true}
	for _, row := range problems {
		types[row.problem.Type] = true
	}
	return types
}
