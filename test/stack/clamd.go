package stack

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tramo/tramo/deploy"
)

const clamdSocketName = "clamd.sock"

// ClamdConfig says where clamd keeps its configuration and temporary files.
type ClamdConfig struct {
	// Dir is created if missing. Without it, a temporary directory that Stop removes.
	Dir string
	// Database is a directory of virus signatures. By default freshclam's, where it has been filled and Known is nil, else
	// one in Dir/database.
	Database string
	// Known are contents that clamd finds, by the names of their signatures. Without it, that in Dir/database knows the
	// EICAR test file and nothing more.
	Known map[string][]byte
	// Extra are lines for clamd.conf. They come first: of a line given twice clamd believes the first.
	Extra []string
	// Log receives what clamd prints. Nil discards it.
	Log io.Writer
}

// Clamd is a private clamd on a unix socket.
type Clamd struct {
	daemon
	cfg    ClamdConfig
	socket string // its path
}

// StartClamd starts clamd and returns once it answers PING.
func StartClamd(ctx context.Context, cfg ClamdConfig) (*Clamd, error) {
	c := &Clamd{cfg: cfg}
	// The real database takes 10 to 40 seconds to load.
	if err := c.begin(ctx, 3*time.Minute, c.prepare, c.run); err != nil {
		return nil, err
	}
	return c, nil
}

// Address returns unix: and the socket's path.
func (c *Clamd) Address() string { return "unix:" + c.socket }

// Config returns the path of its clamd.conf, for clamdscan.
func (c *Clamd) Config() string { return filepath.Join(c.cfg.Dir, "clamd.conf") }

func (c *Clamd) prepare(context.Context) (err error) {
	if c.cfg.Dir, err = c.private(c.cfg.Dir, "clamd"); err != nil {
		return err
	}
	socketDir, err := c.forSocket(c.cfg.Dir, clamdSocketName)
	if err != nil {
		return err
	}
	c.socket = filepath.Join(socketDir, clamdSocketName)
	if c.cfg.Database == "" {
		if c.cfg.Database, err = c.database(); err != nil {
			return fmt.Errorf("make a virus database: %w", err)
		}
	}
	if err := c.configure(); err != nil {
		return fmt.Errorf("configure clamd: %w", err)
	}
	return nil
}

func (c *Clamd) run(ctx context.Context) error {
	bin, err := c.binary()
	if err != nil {
		return err
	}
	return c.launch(ctx, ProcessConfig{Path: bin, Name: "clamd", Args: []string{"--config-file=" + c.Config()}, Log: c.cfg.Log, Grace: 15 * time.Second},
		// PING queues behind scans, but nothing is scanned yet.
		func(ctx context.Context) error { return ask(ctx, "unix", c.socket, "zPING\x00", "PONG\x00") })
}

// configure writes clamd.conf. There is no User line: clamd runs as whoever starts it, root included.
func (c *Clamd) configure() error {
	tmp := filepath.Join(c.cfg.Dir, "tmp")
	// A killed clamd may have left files here.
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		return err
	}
	conf := strings.Join(slices.Concat(c.cfg.Extra, []string{
		"Foreground yes",
		"DatabaseDirectory " + c.cfg.Database,
		"LocalSocket " + c.socket,
		"LocalSocketMode 600",
		"TemporaryDirectory " + tmp,
		"MaxThreads 4",
		"SelfCheck 0",
		deploy.Clamd,
	}), "\n") + "\n"
	return os.WriteFile(c.Config(), []byte(conf), 0o600)
}

// Signature is the line of an .hdb file by which clamd knows a content: its MD5, size and name.
func Signature(name string, content []byte) string {
	return fmt.Sprintf("%x:%d:%s\n", md5.Sum(content), len(content), name)
}

// database returns freshclam's database, if there is one, else makes one of our own.
func (c *Clamd) database() (string, error) {
	const freshclam = "/var/lib/clamav"
	if c.cfg.Known == nil {
		for _, pattern := range []string{"main.c?d", "daily.c?d"} {
			if found, _ := filepath.Glob(filepath.Join(freshclam, pattern)); len(found) > 0 { // the pattern is well formed
				return freshclam, nil
			}
		}
		c.cfg.Known = map[string][]byte{"Eicar-Test-HDB": []byte(EICAR())}
	}
	var signatures string
	for name, content := range c.cfg.Known {
		signatures += Signature(name, content)
	}
	dir := filepath.Join(c.cfg.Dir, "database")
	return dir, errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "tramo.hdb"), []byte(signatures), 0o600))
}

// binary returns the clamd to run. Debian's AppArmor profile is tied to /usr/sbin/clamd and lets it read
// nothing but its own directories; a copy is not confined by it.
func (c *Clamd) binary() (string, error) {
	path, err := findProgram("clamd", "/usr/sbin", "/usr/local/sbin")
	if err != nil {
		return "", fmt.Errorf("%w; install the package clamav-daemon", err)
	}
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(enabled), "Y") {
		return path, nil
	}
	program, err := os.ReadFile(path)
	own := filepath.Join(c.cfg.Dir, "clamd")
	// Removed first: a copy that still runs cannot be written to.
	if err := errors.Join(err, os.RemoveAll(own), os.WriteFile(own, program, 0o700)); err != nil {
		return "", fmt.Errorf("copy clamd: %w", err)
	}
	return own, nil
}
