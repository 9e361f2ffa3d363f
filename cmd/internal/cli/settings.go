package cli

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

// Database is the setting of every command that reaches Postgres.
type Database struct {
	DatabaseURL string `placeholder:"URL" help:"Postgres, such as postgres://tramo_api:PASSWORD@db:5432/tramo. The server connects as tramo_api, which row-level security binds; worker, tenant and token as tramo_worker; migrate as a role that may create roles."`
}

// Config returns the setting as package storage takes it.
func (d Database) Config(m *Mistakes) storage.Config {
	c := storage.Config{URL: d.DatabaseURL}
	m.Check("TRAMO_DATABASE_URL", c.Validate())
	return c
}

// Replica is this process's name among others.
type Replica struct {
	Replica string `placeholder:"NAME" help:"This process's name in timelines and leases. Default: the host's name."`
}

// ReplicaName returns the setting, or its default.
func (r Replica) ReplicaName(m *Mistakes) string {
	if r.Replica != "" {
		return r.Replica
	}
	name, err := os.Hostname()
	m.Check("TRAMO_REPLICA", err)
	return name
}

// S3 is where objects are kept.
type S3 struct {
	S3Endpoint string `name:"s3-endpoint" env:"TRAMO_S3_ENDPOINT" placeholder:"URL" help:"S3 endpoint of another server than AWS. Credentials and region come from the AWS SDK's own variables and files."`
	S3Bucket   string `name:"s3-bucket" env:"TRAMO_S3_BUCKET" placeholder:"NAME" help:"Bucket that keeps the uploads."`
}

// Config returns the settings as package object takes them.
func (s S3) Config(m *Mistakes) object.BucketConfig {
	c := object.BucketConfig{Endpoint: s.S3Endpoint, Name: s.S3Bucket}
	m.Check("TRAMO_S3_BUCKET", c.ValidateName())
	m.Check("TRAMO_S3_ENDPOINT", c.ValidateEndpoint())
	return c
}

// Expiry says when uploads are given up.
type Expiry struct {
	UploadExpiry time.Duration `default:"168h" help:"After how long without a byte an unfinished upload expires. Give all programs the same."`
}

// Reconcile says what the reconciler touches.
type Reconcile struct {
	Expiry
	StuckGrace  time.Duration `default:"1m" help:"For how long an upload must be stuck before it is helped on: its finish was cut off, or its job is missing."`
	OrphanGrace time.Duration `default:"1h" help:"How old something in S3 must be before it is believed to be nobody's, or gone."`
}

// Config returns the settings as package hooks takes them.
func (r Reconcile) Config(m *Mistakes) hooks.ReconcilerConfig {
	c := hooks.ReconcilerConfig{Expiry: r.UploadExpiry, StuckGrace: r.StuckGrace, OrphanGrace: r.OrphanGrace}
	m.Check("TRAMO_UPLOAD_EXPIRY, TRAMO_STUCK_GRACE, TRAMO_ORPHAN_GRACE", c.Validate())
	return c
}

// Lease says how long leases live.
type Lease struct {
	LeaseTTL time.Duration `name:"lease-ttl" env:"TRAMO_LEASE_TTL" default:"5s" help:"After how long another replica may take over the uploads of one that died. Give all programs the same."`
}

// Leases makes the lease manager of the process named replica.
func (l Lease) Leases(db *storage.DB, replica string, registry *prometheus.Registry, log *slog.Logger) *lease.Manager {
	leases := lease.NewManager(db, replica, l.LeaseTTL, log)
	registry.MustRegister(leases)
	return leases
}

// CheckTTL reports what is wrong with the setting.
func (l Lease) CheckTTL(m *Mistakes) {
	m.Check("TRAMO_LEASE_TTL", lease.ValidateTTL(l.LeaseTTL))
}

// Log says how to log.
type Log struct {
	LogFormat string `default:"json" help:"json, or text for a terminal."`
	LogLevel  string `default:"info" help:"debug, info, warn or error."`
}

// Logger makes the logger, which writes to standard error.
func (l Log) Logger(m *Mistakes) *slog.Logger {
	log, err := telemetry.NewLogger(os.Stderr, l.LogFormat, l.LogLevel)
	m.Check("TRAMO_LOG_FORMAT, TRAMO_LOG_LEVEL", err)
	return log
}

// Types is the list of what may be uploaded.
type Types struct {
	AllowedTypes string `default:"${types}" help:"Media types that are accepted, with commas between them; image/* takes all of a kind."`
}

// Policy parses the list.
func (t Types) Policy(m *Mistakes) mediatype.Policy {
	p, err := mediatype.ParsePolicy(t.AllowedTypes)
	m.Check("TRAMO_ALLOWED_TYPES", err)
	return p
}

// CheckAddress reports whether s is an address to listen on.
func CheckAddress(s string) error {
	if _, _, err := net.SplitHostPort(s); err != nil {
		return fmt.Errorf("%q is not an address such as 127.0.0.1:8080 or :8080", s)
	}
	return nil
}

// CheckNotNegative reports whether n is a number of something.
func CheckNotNegative(n int) error {
	if n < 0 {
		return fmt.Errorf("%d is less than 0", n)
	}
	return nil
}
