package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy stands between a client and a TCP server and breaks what passes. Its faults add up until Clear.
type Proxy struct {
	proxy *toxiproxy.Proxy
}

// NewProxy listens on a free loopback port and passes everything to upstream, a host:port or an http URL.
func NewProxy(upstream string) (*Proxy, error) {
	upstream = strings.TrimSuffix(strings.TrimPrefix(upstream, "http://"), "/")
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{proxy: toxiproxy.NewProxy(server, upstream, "127.0.0.1:0", upstream)}
	if err := p.proxy.Start(); err != nil {
		return nil, fmt.Errorf("start a proxy to %s: %w", upstream, err)
	}
	return p, nil
}

// Addr returns the host:port that clients connect to. It stays the same through Down and Up.
func (p *Proxy) Addr() string { return p.proxy.Listen }

// URL returns Addr as an http URL.
func (p *Proxy) URL() string { return "http://" + p.Addr() }

// CutAfter closes each connection once its client has sent that many bytes, headers included. Bytes
// beyond are not passed on.
func (p *Proxy) CutAfter(bytes int64) error {
	return p.add("limit_data", "upstream", map[string]int64{"bytes": bytes})
}

// Latency delays all that the server answers by d.
func (p *Proxy) Latency(d time.Duration) error {
	return p.add("latency", "downstream", map[string]int64{"latency": d.Milliseconds()})
}

// Bandwidth bounds what each client sends, in bits a second.
func (p *Proxy) Bandwidth(bits int64) error {
	return p.add("bandwidth", "upstream", map[string]int64{"rate": bits / 8000}) // KB a second
}

// Down closes every connection and refuses new ones.
func (p *Proxy) Down() { p.proxy.Stop() }

// Up ends Down.
func (p *Proxy) Up() error {
	if err := p.proxy.Start(); err != nil {
		return fmt.Errorf("start the proxy to %s again: %w", p.proxy.Upstream, err)
	}
	return nil
}

// Clear removes every fault but Down.
func (p *Proxy) Clear() { p.proxy.Toxics.ResetToxics(context.Background()) }

// Close ends the proxy and every connection through it.
func (p *Proxy) Close() { p.proxy.Stop() }

// add puts a toxic in place of an older one of its kind.
func (p *Proxy) add(kind, stream string, attributes map[string]int64) error {
	if p.proxy.Toxics.GetToxic(kind) != nil {
		if err := p.proxy.Toxics.RemoveToxic(context.Background(), kind); err != nil {
			return fmt.Errorf("replace the fault %s: %w", kind, err)
		}
	}
	toxic, err := json.Marshal(map[string]any{"name": kind, "type": kind, "stream": stream, "attributes": attributes})
	if err != nil {
		return err
	}
	if _, err := p.proxy.Toxics.AddToxicJson(bytes.NewReader(toxic)); err != nil {
		return fmt.Errorf("add the fault %s: %w", kind, err)
	}
	return nil
}
