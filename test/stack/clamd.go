package stack

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tramo/tramo/deploy"
)

const (
	clamdSocketName = "clamd.sock"
	// The real database takes 10 to 40 seconds to load.
	clamdStartTimeout = 3 * time.Minute
	clamdStopTimeout  = 15 * time.Second
)

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
	cfg    ClamdConfig
	socket string   // its directory
	temp   []string // directories that Stop removes
	child  *child
}

// StartClamd starts clamd and returns once it answers PING.
func StartClamd(ctx context.Context, cfg ClamdConfig) (*Clamd, error) {
	ctx, cancel := context.WithTimeout(ctx, clamdStartTimeout)
	defer cancel()
	c := &Clamd{cfg: cfg}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Address returns unix: and the socket's path.
func (c *Clamd) Address() string { return "unix:" + c.socketPath() }

// Config returns the path of its clamd.conf, for clamdscan.
func (c *Clamd) Config() string { return filepath.Join(c.cfg.Dir, "clamd.conf") }

// Pid returns the id of the server's process.
func (c *Clamd) Pid() int { return c.child.pid() }

// Exited is closed when clamd has ended, for whatever reason.
func (c *Clamd) Exited() <-chan struct{} { return c.child.done }

// Stop ends clamd. It may be called twice.
func (c *Clamd) Stop() (err error) {
	if c.child != nil {
		err = c.child.stop(syscall.SIGTERM, clamdStopTimeout)
	}
	for _, dir := range c.temp {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Kill ends clamd as kill -9 does. Restart brings it back.
func (c *Clamd) Kill() { c.child.kill() }

// Restart stops clamd, if it still runs, and starts it at the same address.
func (c *Clamd) Restart(ctx context.Context) error {
	if err := c.child.stop(syscall.SIGTERM, clamdStopTimeout); err != nil {
		return err
	}
	return c.launch(ctx)
}

func (c *Clamd) socketPath() string { return filepath.Join(c.socket, clamdSocketName) }

func (c *Clamd) start(ctx context.Context) (err error) {
	if c.cfg.Dir == "" {
		if c.cfg.Dir, err = os.MkdirTemp("", "tramo-clamd-"); err != nil {
			return fmt.Errorf("make a directory for clamd: %w", err)
		}
		c.temp = append(c.temp, c.cfg.Dir)
	}
	if c.cfg.Dir, err = privateDir(c.cfg.Dir); err != nil {
		return fmt.Errorf("make a directory for clamd: %w", err)
	}
	var temp bool
	if c.socket, temp, err = socketDir(c.cfg.Dir, "tramo-clamd-", clamdSocketName); err != nil {
		return err
	}
	if temp {
		c.temp = append(c.temp, c.socket)
	}
	if c.cfg.Database == "" {
		if c.cfg.Database, err = c.database(); err != nil {
			return err
		}
	}
	if err := c.configure(); err != nil {
		return err
	}
	return c.launch(ctx)
}

func (c *Clamd) launch(ctx context.Context) error {
	bin, err := c.binary()
	if err != nil {
		return err
	}
	cmd := exec.Command(bin, "--config-file="+filepath.Join(c.cfg.Dir, "clamd.conf"))
	if c.child, err = spawn("clamd", cmd, syscall.SIGKILL, c.cfg.Log); err != nil {
		return err
	}
	return c.child.await(ctx, c.ping)
}

// configure writes clamd.conf. There is no User line: clamd runs as whoever starts it, root included.
func (c *Clamd) configure() error {
	tmp := filepath.Join(c.cfg.Dir, "tmp")
	// What a killed clamd left here is nobody's.
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("empty clamd's temporary directory: %w", err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("make clamd's temporary directory: %w", err)
	}
	conf := strings.Join(slices.Concat(c.cfg.Extra, []string{
		"Foreground yes",
		"DatabaseDirectory " + c.cfg.Database,
		"LocalSocket " + c.socketPath(),
		"LocalSocketMode 600",
		"TemporaryDirectory " + tmp,
		"MaxThreads 4",
		"SelfCheck 0",
		deploy.Clamd,
	}), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(c.cfg.Dir, "clamd.conf"), []byte(conf), 0o600); err != nil {
		return fmt.Errorf("write clamd's configuration: %w", err)
	}
	return nil
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
			found, _ := filepath.Glob(filepath.Join(freshclam, pattern)) // the pattern is well formed
			if len(found) > 0 {
				return freshclam, nil
			}
		}
		c.cfg.Known = map[string][]byte{"Eicar-Test-HDB": []byte(EICAR())}
	}
	dir := filepath.Join(c.cfg.Dir, "database")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a virus database: %w", err)
	}
	var signatures string
	for name, content := range c.cfg.Known {
		signatures += Signature(name, content)
	}
	if err := os.WriteFile(filepath.Join(dir, "tramo.hdb"), []byte(signatures), 0o600); err != nil {
		return "", fmt.Errorf("make a virus database: %w", err)
	}
	return dir, nil
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
	if err != nil {
		return "", fmt.Errorf("copy clamd: %w", err)
	}
	own := filepath.Join(c.cfg.Dir, "clamd")
	// Removed first: a copy that still runs cannot be written to.
	if err := os.RemoveAll(own); err != nil {
		return "", fmt.Errorf("copy clamd: %w", err)
	}
	if err := os.WriteFile(own, program, 0o700); err != nil {
		return "", fmt.Errorf("copy clamd: %w", err)
	}
	return own, nil
}

func (c *Clamd) ping(ctx context.Context) error {
	// PING queues behind scans, but nobody scans yet.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socketPath())
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(conn, "zPING\x00"); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 64))
	if err != nil {
		return err
	}
	if string(answer) != "PONG\x00" {
		return fmt.Errorf("clamd answers PING with %q", answer)
	}
	return nil
}

// findProgram looks in PATH and then in dirs: an ordinary user's PATH has no sbin.
func findProgram(name string, dirs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: not in PATH nor in %s", name, strings.Join(dirs, ", "))
}
