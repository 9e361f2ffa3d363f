package dev

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/telemetry"
)

type config struct {
	cli.Root

	Dir string `name:"dev-dir" help:"Directory of all data: rows, objects, secrets."`

	Listen          string `name:"listen" help:"Address of the API and the page."`
	OpsListen       string `name:"ops-listen" help:"Address of the server's /livez, /readyz and /metrics."`
	WorkerOpsListen string `name:"dev-worker-ops-listen" help:"Address of the worker's /livez, /readyz and /metrics."`
	PublicURL       string `name:"public-url" placeholder:"URL" help:"URL at which clients reach the server. Default: the Host of each request, so that a phone may use another address."`

	DatabaseURL telemetry.Secret `name:"database-url" placeholder:"URL" help:"URL of a superuser of a Postgres database to use instead of a private one. The roles tramo_api and tramo_worker belong to the whole Postgres server, and get the passwords in TRAMO_API_PASSWORD and TRAMO_WORKER_PASSWORD, or new ones: do not use a server that another Tramo uses."`
	S3Endpoint  string           `name:"s3-endpoint" placeholder:"URL" help:"URL of an S3 server to use instead of a private one. Credentials come from the AWS SDK's variables."`
	S3Bucket    string           `name:"s3-bucket" placeholder:"NAME" help:"Bucket at TRAMO_S3_ENDPOINT, or at AWS without an endpoint."`
	S3Listen    string           `name:"dev-s3-listen" placeholder:"ADDRESS" help:"Address of the private S3 server. Default: a free port, the same at each start."`
	Clamd       string           `name:"clamd" placeholder:"ADDRESS" help:"Address of a clamd to use instead of a private one: unix:/path/to/socket or tcp://host:port."`

	JWTSecret      telemetry.Secret `name:"jwt-secret" placeholder:"SECRET" help:"Secret that signs tokens. Default: generated at the first start."`
	JWKSURL        string           `name:"jwks-url" placeholder:"URL" help:"URL of an identity provider's keys, instead of a secret. Then there is no demo token."`
	ReceiptKeyFile string           `name:"receipt-key-file" placeholder:"FILE" help:"Private key that signs receipts. Default: generated at the first start."`
	WebhookKey     telemetry.Secret `name:"webhook-key" placeholder:"SECRET" help:"Secret that encrypts the secrets which sign webhooks. Default: generated at the first start."`

	LogFormat string `name:"log-format" help:"Format of the log: text or json."`
}

func defaultConfig() *config {
	return &config{Dir: ".tramo", Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:9090", WorkerOpsListen: "127.0.0.1:9091", LogFormat: "text"}
}

func (c *config) ownDatabase() bool { return c.DatabaseURL == "" }
func (c *config) ownS3() bool       { return c.S3Endpoint == "" && c.S3Bucket == "" }
func (c *config) ownClamd() bool    { return c.Clamd == "" }
func (c *config) signsTokens() bool { return c.JWTSecret != "" || c.JWKSURL == "" }

// Check implements [cli.Checker]. It makes paths absolute.
func (c *config) Check() error {
	var errs []error
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		errs = append(errs, fmt.Errorf("TRAMO_DEV_DIR: %w", err))
	}
	for name, addr := range map[string]string{
		"TRAMO_LISTEN": c.Listen, "TRAMO_OPS_LISTEN": c.OpsListen,
		"TRAMO_DEV_WORKER_OPS_LISTEN": c.WorkerOpsListen, "TRAMO_DEV_S3_LISTEN": c.S3Listen,
	} {
		if _, _, err := net.SplitHostPort(addr); err != nil && addr != "" {
			errs = append(errs, fmt.Errorf("%s=%s: give host:port, such as 127.0.0.1:8080", name, addr))
		}
	}
	if c.DatabaseURL != "" {
		u, err := url.Parse(string(c.DatabaseURL))
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			errs = append(errs, errors.New("TRAMO_DATABASE_URL: give a URL, postgres://user:password@host/database"))
		}
	}
	if c.S3Endpoint != "" && c.S3Bucket == "" {
		errs = append(errs, errors.New("TRAMO_S3_BUCKET: name the bucket to use at TRAMO_S3_ENDPOINT"))
	}
	if c.JWTSecret != "" && c.JWKSURL != "" {
		errs = append(errs, errors.New("TRAMO_JWT_SECRET, TRAMO_JWKS_URL: give one of them"))
	}
	return errors.Join(errs...)
}

// page returns the URL of the page on this machine.
func (c *config) page() string {
	if c.PublicURL != "" {
		return strings.TrimSuffix(c.PublicURL, "/")
	}
	return localURL(c.Listen)
}

// localURL returns the URL at which this machine reaches the address listen.
func localURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// lockDir makes dir and locks it against a second tramo-dev until the file is closed; the kernel closes it when we end.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make TRAMO_DEV_DIR: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(f.Name()) // without it the message lacks the pid
		return nil, errors.Join(
			fmt.Errorf("another tramo-dev (pid %s) runs on %s: stop it, or choose another directory with TRAMO_DEV_DIR", strings.TrimSpace(string(pid)), dir),
			f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

func writePID(f *os.File) error {
	_, err := fmt.Fprintln(f, os.Getpid())
	return err
}

// secret returns the 64 hexadecimal digits in the file name in dir, and generates them the first time.
func secret(dir, name string) (string, error) {
	return remember(dir, name, func() (string, error) {
		b := make([]byte, 32)
		rand.Read(b)
		return hex.EncodeToString(b), nil
	})
}

// receiptKey returns the path of the private key in dir that signs receipts, and generates it the first time.
func receiptKey(dir string) (string, error) {
	const name = "receipt-key.pem"
	_, err := remember(dir, name, func() (string, error) {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return "", err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
	})
	return filepath.Join(dir, name), err
}

// remember returns the content of the file name in dir; the first time, it writes there what generate returns.
func remember(dir, name string, generate func() (string, error)) (string, error) {
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	value, err := generate()
	if err != nil {
		return "", err
	}
	return value, os.WriteFile(path, []byte(value+"\n"), 0o600)
}

// checkPorts reports every address that is in use, with the variable that changes it.
func (c *config) checkPorts() error {
	var errs []error
	for _, l := range []struct{ name, addr, other string }{
		{"TRAMO_LISTEN", c.Listen, "127.0.0.1:8081"},
		{"TRAMO_OPS_LISTEN", c.OpsListen, "127.0.0.1:9190"},
		{"TRAMO_DEV_WORKER_OPS_LISTEN", c.WorkerOpsListen, "127.0.0.1:9191"},
	} {
		if err := awaitFree(l.addr); errors.Is(err, syscall.EADDRINUSE) {
			errs = append(errs, fmt.Errorf("%s is in use by another program: stop that, or choose another address with %s, such as %s=%s",
				l.addr, l.name, l.name, l.other))
		} else if err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: %w", l.name, l.addr, err))
		}
	}
	return errors.Join(errs...)
}

// awaitFree returns nil once addr is free. It waits a second, because the children of a killed tramo-dev may still be ending.
func awaitFree(addr string) error {
	give := time.NewTimer(time.Second)
	defer give.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l.Close()
		}
		select {
		case <-tick.C:
		case <-give.C:
			return err
		}
	}
}
