package telemetry

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sourcegraph/conc/panics"
)

// NewRegistry makes a registry with the metrics of the build, the process and the Go runtime.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(buildInfo(ThisBuild()), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// A Check reports whether a dependency works.
type Check struct {
	Name     string
	Ask      func(ctx context.Context) error // must return once ctx is done
	Optional bool                            // a failure is reported, but does not make the process unready
}

// OpsConfig says where the operations listener is.
type OpsConfig struct {
	Listen string `name:"ops-listen" help:"Address of /livez, /readyz, /metrics and, with TRAMO_PPROF, /debug/pprof/. Clients must not reach it."`
	Token  Secret `name:"ops-token" placeholder:"TOKEN" help:"Token of 16 bytes or more that /metrics and /debug/pprof/ ask for, as Authorization: Bearer TOKEN. Without it /readyz says only whether the process is ready, and not why. Default: none is asked for."`
	Pprof  bool   `name:"pprof" help:"Serve profiles at /debug/pprof/, for go tool pprof. Whoever reaches it, with the token where one is set, can slow the process down."`
}

// Validate reports what is wrong with c.
func (c OpsConfig) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("TRAMO_OPS_LISTEN: %q is not an address such as 127.0.0.1:9090 or :9090", c.Listen)
	}
	if c.Token != "" && len(c.Token) < minOpsToken {
		return fmt.Errorf("TRAMO_OPS_TOKEN: it has %d bytes; at least %d are needed, such as openssl rand -hex 32 prints", len(c.Token), minOpsToken)
	}
	return nil
}

// minOpsToken is the least length of a token, in bytes.
const minOpsToken = 16

// Ops is the operations listener: /livez, /readyz, /metrics and, if asked for, /debug/pprof/, on an address that clients cannot reach.
type Ops struct {
	OpsConfig
	Checks   []Check
	Registry *prometheus.Registry
	Log      *slog.Logger
	// CheckTimeout bounds the checks of one request to /readyz; 0 means five seconds.
	CheckTimeout time.Duration

	mu   sync.Mutex
	told map[string][]string // by check, what was logged since it was ok last
}

// Run serves until ctx is done.
func (o *Ops) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen for operations: %w", err)
	}
	s := &http.Server{Handler: o.Handler(), ReadHeaderTimeout: 10 * time.Second}
	o.Log.InfoContext(ctx, "serving operations", slog.String("address", l.Addr().String()))
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve operations: %w", err)
	}
	return nil
}

// Handler serves the paths of o.
func (o *Ops) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", livez)
	mux.HandleFunc("GET /readyz", o.readyz)
	mux.Handle("GET /metrics", o.trusted(promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{Registry: o.Registry})))
	if o.Pprof {
		mux.Handle("GET /debug/pprof/", o.trusted(profiles()))
	}
	return mux
}

// trusted serves only requests that o trusts.
func (o *Ops) trusted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !o.trusts(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "TRAMO_OPS_TOKEN is needed", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// trusts reports whether a request has the token, or none is asked for.
func (o *Ops) trusts(r *http.Request) bool {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return o.Token == "" || bearer && subtle.ConstantTimeCompare([]byte(token), []byte(o.Token)) == 1
}

// livez answers 200, with the build, as long as the process answers at all.
func livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
		Build
	}{"ok", ThisBuild()})
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client may be gone
}

// readyz answers 200 if every dependency works that is not optional, and 503 otherwise, with the result of each check.
func (o *Ops) readyz(w http.ResponseWriter, r *http.Request) {
	limit := o.CheckTimeout
	if limit == 0 {
		limit = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	found := make([]string, len(o.Checks))
	var wg sync.WaitGroup
	for i, c := range o.Checks {
		wg.Go(func() {
			found[i] = "ok"
			var err error
			if p := panics.Try(func() { err = c.Ask(ctx) }); p != nil {
				err = p.AsError()
			}
			if err != nil {
				found[i] = err.Error()
			}
		})
	}
	wg.Wait()
	status := http.StatusOK
	answer := make(map[string]string, len(o.Checks))
	for i, c := range o.Checks {
		answer[c.Name] = found[i]
		if found[i] != "ok" && !c.Optional {
			status = http.StatusServiceUnavailable
		}
		if !c.Optional {
			o.tell(ctx, c.Name, found[i])
		}
	}
	if !o.trusts(r) {
		answer = map[string]string{} // probes need the status alone
	}
	writeJSON(w, status, answer)
}

// tell logs each thing once, however often it is asked for, until the dependency is ok again.
func (o *Ops) tell(ctx context.Context, name, found string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.told == nil {
		o.told = make(map[string][]string)
	}
	before := o.told[name]
	switch {
	case found == "ok" && before != nil:
		o.Log.InfoContext(ctx, "ready again", slog.String("dependency", name))
		delete(o.told, name)
	case found != "ok" && !slices.Contains(before, found):
		o.Log.WarnContext(ctx, "not ready", slog.String("dependency", name), slog.String("err", found))
		o.told[name] = append(before, found)
	}
}
