package telemetry

import (
	"cmp"
	"net/http"
	"net/http/pprof" // which also registers with http.DefaultServeMux; no listener serves that
	"strconv"
	"time"

	"github.com/felixge/fgprof"
	"github.com/sourcegraph/conc/panics"
)

// profiles serves what go tool pprof and go tool trace read. The command line of the process is not among it: flags may
// have secrets.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // and every profile of the runtime by its name, such as heap
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/wall", wall)
	return mux
}

// wall answers a profile of all goroutines over so many seconds, those that wait among them. The profiles of the runtime
// have no such thing: the CPU profile has only those that compute. It ends early when the client has gone.
func wall(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.ParseUint(cmp.Or(r.FormValue("seconds"), "30"), 10, 16)
	if err != nil || seconds == 0 {
		http.Error(w, "seconds is not a number from 1 to 65535", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	stop := fgprof.Start(w, fgprof.FormatPprof)
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-r.Context().Done():
	}
	// The client may be gone, and fgprof divides by the number of its samples, of which there may be none yet.
	_ = panics.Try(func() { _ = stop() })
}
