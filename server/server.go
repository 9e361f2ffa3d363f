// Package server puts the API and the page on the network: the table of routes, the order of the middleware, start and
// stop. It decides nothing about uploads; package hooks does.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/api"
	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/server/connection"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/server/tus"
)

// Config shapes a Server.
type Config struct {
	Listen          string        `name:"listen" help:"Address of the API and the page."`
	PublicURL       string        `name:"public-url" placeholder:"URL" help:"URL at which clients reach this server, for the addresses of uploads. Default: the Host of each request."`
	NetworkTimeout  time.Duration `name:"network-timeout" help:"How long the body of a request may be silent. Then the request ends, and the upload keeps what has arrived."`
	LeaseTimeout    time.Duration `kong:"-"` // how long a request waits for an upload that another request writes
	ShutdownTimeout time.Duration `kong:"-"` // how long running requests may take to save what has arrived

	RequestTimeout time.Duration     `kong:"-"` // how long a request other than an upload may take to arrive, and its answer to be sent
	MaxBody        int64             `kong:"-"` // bytes of such a request's body, unless the table of routes says otherwise
	CORSOrigins    []string          `name:"cors-origins" placeholder:"ORIGIN" help:"Origins whose pages may use the API in a browser, such as https://app.example.com, separated by commas; * for all. Default: only this server's own."`
	TrustedProxies Proxies           `name:"trusted-proxies" placeholder:"NETWORKS" help:"Networks of the proxies in front of this server, such as 10.0.0.0/8, separated by commas. X-Forwarded-For, -Proto and -Host are believed from these only."`
	ServeContent   bool              `name:"serve-content" help:"Whether this server sends files and thumbnails itself, for clients that cannot reach S3. Otherwise it redirects them to S3, and their bytes take no way through it."`
	TenantUploads  int               `name:"tenant-uploads" help:"How many uploads of a tenant may send to one server at the same time, unless the tenant has a maximum of its own; 0 for any number."`
	UserUploads    int               `name:"user-uploads" help:"How many of these may be one user's; 0 for half of them."`
	LeastRate      int64             `name:"least-rate" type:"bytes" help:"How much an upload must send in a second, on average over two minutes, to keep its place when another of its tenant waits for one; 0 for nothing."`
	LeastRateOver  time.Duration     `kong:"-"` // of waiting for the client
	Live           live.Config       `embed:""`
	Connections    connection.Config `embed:""`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Listen:          "127.0.0.1:8080",
		NetworkTimeout:  time.Minute,
		LeaseTimeout:    15 * time.Second,
		ShutdownTimeout: 30 * time.Second,
		RequestTimeout:  30 * time.Second,
		MaxBody:         1 << 20,
		TenantUploads:   500,
		LeastRate:       1 << 10,
		LeastRateOver:   2 * time.Minute,
		Live:            live.DefaultConfig(),
		Connections:     connection.DefaultConfig(),
	}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	errs := []error{c.Live.Validate(), c.Connections.Validate(), ValidateOrigins(c.CORSOrigins)}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("TRAMO_LISTEN: %q is not an address such as 127.0.0.1:8080 or :8080", c.Listen))
	}
	u, err := url.Parse(c.PublicURL)
	if c.PublicURL != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "") {
		errs = append(errs, fmt.Errorf("TRAMO_PUBLIC_URL: %q is not a URL without a path, such as https://uploads.example.com", c.PublicURL))
	}
	if c.NetworkTimeout <= 0 {
		errs = append(errs, fmt.Errorf("TRAMO_NETWORK_TIMEOUT: %s is not more than 0", c.NetworkTimeout))
	}
	if c.TenantUploads < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_TENANT_UPLOADS: %d is less than 0", c.TenantUploads))
	}
	if c.UserUploads < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_USER_UPLOADS: %d is less than 0", c.UserUploads))
	}
	if c.LeastRate < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_LEAST_RATE: %d is less than 0", c.LeastRate))
	}
	return errors.Join(errs...)
}

// Parts are what a Server serves.
type Parts struct {
	api.Services
	Verifier *auth.Verifier
	Links    *auth.Links
	Metrics  *Metrics
	Tracers  trace.TracerProvider
}

// A Server serves Tramo's API and page.
type Server struct {
	Config
	Parts
	echo    *echo.Echo
	handler http.Handler // echo, traced
	auth    *auth.Authenticator
	live    *live.Hub
	reader  *resource.Reader

	concurrency *ratelimit.Concurrency
	bodies      map[string]int64 // most bytes of a request's body, by method and path
}

// New makes the rooms of the server and wires the routes.
func New(c Config, p Parts) (*Server, error) {
	s := &Server{Config: c, Parts: p, echo: echo.New()}
	s.auth = &auth.Authenticator{Verifier: p.Verifier, Links: p.Links, DB: p.DB, Log: p.Log}
	s.concurrency = &ratelimit.Concurrency{
		DB: p.DB, MaxUploads: c.TenantUploads, UserUploads: c.UserUploads, LeastRate: c.LeastRate, LeastRateOver: c.LeastRateOver, Wait: c.LeaseTimeout,
	}
	s.reader = &resource.Reader{DB: p.DB, Expiry: p.Uploads.Expiry, Sign: p.Links.Sign, Log: p.Log}
	s.live = live.New(c.Live, live.Parts{
		DB: p.DB, Reader: s.reader, Metrics: p.Metrics.live, Log: p.Log,
		CheckOrigin: s.checkOrigin, Admit: s.auth.Admit, Standing: s.auth.Forget,
	})
	uploads, err := tus.New(tus.Config{
		PublicURL: c.PublicURL, NetworkTimeout: c.NetworkTimeout, LeaseTimeout: c.LeaseTimeout,
		Base: s.baseAt, Denied: s.auth.AuditDenial,
	}, p.Uploads)
	if err != nil {
		return nil, err
	}
	pages, err := s.pages()
	if err != nil {
		return nil, err
	}
	e := s.echo
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = problem.Handler(s.auth.AuditDenial)
	e.IPExtractor = s.TrustedProxies.extractor()
	e.Use(
		nameTrace,
		s.setOrigin,
		s.secure,
		s.logRequest,
		s.Metrics.observe, // answers errors, so that those before it see the status
		recovered,
		s.bound,
		nameUploadProtocol, // before the first refusal that a tus client can get
		s.Limits.Address,
	)
	resources := &api.API{
		Services: p.Services, Contents: &hooks.Contents{DB: p.DB}, Reader: s.reader, Base: s.baseOf,
		Config: api.Config{
			MaxUploads: c.TenantUploads, PublicURL: c.PublicURL, ServeContent: c.ServeContent,
			NetworkTimeout: c.NetworkTimeout, LeaseTimeout: c.LeaseTimeout, ShutdownTimeout: c.ShutdownTimeout,
		},
	}
	s.wire(handlers{
		API: resources, pages: pages, upload: formOr(resources.PostForm, uploads.Serve), uploadOptions: uploads.Options,
	})
	// CORS and traces wrap all, also what echo itself answers.
	s.handler = s.traced(s.crossOrigin(s.echo))
	return s, nil
}

// Run serves until ctx is done. Then it interrupts running uploads, which save what has arrived and release their leases,
// and ends event streams; clients reconnect.
func (s *Server) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	var followed sync.WaitGroup
	followed.Go(func() { s.Follow(following) })
	defer followed.Wait()
	defer stopFollowing()
	return s.serve(ctx, l.(*net.TCPListener), s)
}

// serve is the part of [Server.Run] that is about the network. It closes the listener.
func (s *Server) serve(ctx context.Context, tcp *net.TCPListener, handler http.Handler) error {
	l := s.listener(tcp)
	base, stopUploads := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopUploads(nil)
	hs := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       connection.Context,
		ConnState:         awaitHead,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
		IdleTimeout:       2 * time.Minute,
		// No ReadTimeout and no WriteTimeout: an upload takes as long as its network needs, and its reader bounds the
		// silence. Other requests have [Config.RequestTimeout].
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	s.Log.InfoContext(ctx, "serving", slog.String("address", l.Addr().String()))
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	stopUploads(tus.ErrStopping)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.ShutdownTimeout)
	defer cancel()
	err := hs.Shutdown(last)
	if err != nil {
		err = fmt.Errorf("finish running requests: %w", errors.Join(err, hs.Close()))
	}
	l.Drain(last)  // clients of interrupted uploads read that the server stops
	s.live.Close() // WebSockets, which Shutdown does not know
	return err
}

// Follow sends listeners what changes in the database, until ctx is done. [Server.Run] calls it.
func (s *Server) Follow(ctx context.Context) { s.live.Run(ctx) }
