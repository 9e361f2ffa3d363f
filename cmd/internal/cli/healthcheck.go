package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/tramo/tramo/telemetry"
)

// Healthcheck is the command that container runtimes run beside a program, with the program's own settings: an image without
// a shell has nothing else that could ask.
type Healthcheck struct {
	Ops     telemetry.OpsConfig `embed:""`
	Pprof   struct{}            `kong:"-"` // takes this field of Ops away: nobody asks for profiles here
	Ready   bool                `env:"-" help:"Ask whether the program and what it depends on work (/readyz), not only whether it answers (/livez). A runtime that restarts what is unhealthy must not ask this."`
	Timeout time.Duration       `name:"timeout" env:"-" help:"How long the answer may take."`
}

// DefaultHealthcheck asks a program whose operations listener is at an address by default.
func DefaultHealthcheck(listen string) Healthcheck {
	return Healthcheck{Ops: telemetry.OpsConfig{Listen: listen}, Timeout: 20 * time.Second}
}

// Run implements the command. It succeeds if the answer is 200.
func (h *Healthcheck) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	where := &url.URL{Scheme: "http", Host: reachable(h.Ops.Listen), Path: "/livez"}
	if h.Ready {
		where.Path = "/readyz"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), http.NoBody)
	if err != nil {
		return err
	}
	if h.Ops.Token != "" { // with it, the answer has the reasons
		request.Header.Set("Authorization", "Bearer "+string(h.Ops.Token))
	}
	// The way is to this very host: a proxy of the environment is for others.
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	const most = 4096 // what Docker keeps of a health check's output
	text, err := io.ReadAll(io.LimitReader(answer.Body, most))
	if answer.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("GET %s: %s: %s", where, answer.Status, strings.TrimSpace(string(text))), err)
	}
	return err
}

// reachable is the address at which this host reaches a listener: one on all addresses is also on the loopback one.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip, parseErr := netip.ParseAddr(host); err != nil || host != "" && (parseErr != nil || !ip.IsUnspecified()) {
		return listen
	} else if ip.Is6() {
		return net.JoinHostPort("::1", port)
	}
	return net.JoinHostPort("127.0.0.1", port)
}
