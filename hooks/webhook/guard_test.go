package webhook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tramo/tramo/test/stack"
)

func TestCheckURL(t *testing.T) {
	t.Parallel()
	names := startDNS(t)
	names.set("93.184.215.14")
	public := NewGuard(Config{})
	public.resolver = names.resolver()
	open := NewGuard(Config{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}})
	open.resolver = names.resolver()
	for _, c := range []struct {
		url          string
		public, open bool
	}{
		{"https://hooks.example.com/in?x=1", true, true},
		{"https://hooks.example.com:8443/", true, true},
		{"https://93.184.215.14/", true, true},
		{"https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/", true, true},
		{"http://hooks.example.com/", false, true},
		{"https://10.1.2.3/", false, true},
		{"https://[fd00::1]/", false, true},
		{"https://[::ffff:10.1.2.3]/", false, true},
		{"https://user:pass@hooks.example.com/", false, false},
		{"https://hooks.example.com/#here", false, false},
		{"https://hooks.example.com:25/", false, false},
		{"https://hooks.example.com:70000/", false, false},
		{"https:///in", false, false},
		{"ftp://hooks.example.com/", false, false},
		{"gopher://hooks.example.com/", false, false},
		{"//hooks.example.com/", false, false},
		{"https://hooks.example.com/" + strings.Repeat("x", 2048), false, false},
		{"https://127.0.0.1/", false, false},
		{"https://127.1/", false, false},
		{"https://0.0.0.0/", false, false},
		{"https://[::1]/", false, false},
		{"https://[::]/", false, false},
		{"https://192.168.1.1/", false, false},
		{"https://172.16.0.1/", false, false},
		{"https://169.254.169.254/latest/meta-data", false, false},     // of cloud machines
		{"https://[fd00:ec2::254]/", false, true},                      // the same address, allowed by this configuration
		{"https://168.63.129.16/machine?comp=goalstate", false, false}, // of Azure
		{"https://168.63.129.17/", true, true},
		{"https://[::ffff:168.63.129.16]/", false, false},
		{"https://100.100.100.200/", false, false}, // metadata of Alibaba
		{"https://192.0.0.192/", false, false},     // and of Oracle
		{"https://100.64.0.1/", false, false},      // carriers' NAT
		{"https://[fe80::1]/", false, false},
		{"https://[fe80::1%25eth0]/", false, false},
		{"https://224.0.0.1/", false, false},
		{"https://[ff02::1]/", false, false},
		{"https://255.255.255.255/", false, false},
		{"https://[64:ff9b::7f00:1]/", false, false},  // NAT64 of 127.0.0.1
		{"https://[2002:7f00:1::]/", false, false},    // 6to4 of the same
		{"https://[::ffff:127.0.0.1]/", false, false}, // mapped
		{"https://[::127.0.0.1]/", false, false},      // compatible
		{"https://[2001:db8::1]/", false, false},
	} {
		for guard, want := range map[*Guard]bool{public: c.public, open: c.open} {
			err := guard.CheckURL(t.Context(), c.url)
			var refused *URLError
			if (err == nil) != want || err != nil && !errors.As(err, &refused) {
				t.Errorf("%s: %v, want allowed %t", c.url, err, want)
			}
		}
	}
	// One private address among public ones is refused. A name that does not exist gets the same answer.
	names.set("93.184.215.14", "192.168.1.1")
	private := public.CheckURL(t.Context(), "https://hooks.example.com/")
	names.set()
	unknown := public.CheckURL(t.Context(), "https://hooks.example.com/")
	if private == nil || unknown == nil || private.Error() != unknown.Error() {
		t.Errorf("%v and %v", private, unknown)
	}
}

// A name that resolves to a public address when it is registered, and to loopback when it is sent to, gets nothing there.
func TestRebinding(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := newReceiver(t)
	names := startDNS(t)
	names.set("93.184.215.14")
	strict := NewGuard(Config{AllowHTTP: true})
	strict.resolver = names.resolver()
	s.endpoints.Guard, s.guard = strict, strict
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	stack.Must(t, err)
	s.endpoint(t, s.ctx, "http://hooks.example.com:"+port+"/")
	asked := names.asked.Load()
	names.set("127.0.0.1")
	s.announce(t, s.ctx, 1)
	s.start(t)
	s.await(t, `select last_error = 'address_refused' and last_status is null and attempts = 1 from webhook_deliveries`)
	if names.asked.Load() == asked {
		t.Error("the name was not asked for again: this test proves nothing")
	}
	r.none(t)
	// With loopback allowed, the same name and answer reach the receiver: only the guard had prevented it.
	c := localConfig()
	lax := NewGuard(c)
	lax.resolver = names.resolver()
	client := http.Client{Transport: lax.transport(time.Second)}
	if _, _, err := post(t.Context(), &client, envelope{id: "x", url: "http://hooks.example.com:" + port, secrets: []string{newSecret()}}, time.Now()); err != nil {
		t.Error(err)
	}
	r.next(t)
}

// A redirect is not followed, wherever it leads.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r, target := newReceiver(t), newReceiver(t)
	r.answers(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, target.URL, http.StatusTemporaryRedirect)
	})
	s.endpoint(t, s.ctx, r.URL)
	s.announce(t, s.ctx, 1)
	s.start(t)
	r.next(t)
	s.await(t, `select last_error = 'redirect' and last_status = 307 from webhook_deliveries`)
	target.none(t)
}

// No proxy of the environment's makes the connection instead of us, where no guard would see it.
func TestNoProxy(t *testing.T) {
	r, proxy := newReceiver(t), newReceiver(t)
	// Go uses no proxy for loopback addresses, so the name is not one of those.
	t.Setenv("HTTP_PROXY", proxy.URL)
	names := startDNS(t)
	names.set("127.0.0.1")
	g := NewGuard(localConfig())
	g.resolver = names.resolver()
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	stack.Must(t, err)
	client := http.Client{Transport: g.transport(time.Second)}
	if _, _, err := post(t.Context(), &client, envelope{id: "x", url: "http://hooks.example.com:" + port, secrets: []string{newSecret()}}, time.Now()); err != nil {
		t.Error(err)
	}
	r.next(t)
	proxy.none(t)
}

// A nameServer answers every question for an address with those that it was told.
type nameServer struct {
	conn  net.PacketConn
	addrs atomic.Pointer[[]netip.Addr]
	asked atomic.Int64
}

func startDNS(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	stack.Must(t, err)
	s := &nameServer{conn: conn}
	s.set()
	t.Cleanup(func() { _ = conn.Close() })
	go s.serve()
	return s
}

func (s *nameServer) set(addrs ...string) {
	all := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		all[i] = netip.MustParseAddr(a)
	}
	s.addrs.Store(&all)
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
			continue
		}
		s.asked.Add(1)
		q := m.Questions[0]
		answer := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true},
			Questions: m.Questions[:1],
		}
		all := *s.addrs.Load()
		if len(all) == 0 {
			answer.RCode = dnsmessage.RCodeNameError
		}
		for _, a := range all {
			if q.Type == dnsmessage.TypeA && a.Is4() {
				answer.Answers = append(answer.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: a.As4()},
				})
			}
		}
		if packed, err := answer.Pack(); err == nil {
			_, _ = s.conn.WriteTo(packed, from)
		}
	}
}
