package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// startTime is how long a server may take until it serves.
const startTime = 2 * time.Minute

// A stand is where servers are measured: a Postgres that syncs, an S3 server, and a proxy before it that counts and
// delays. Servers are processes of their own, so what they use can be told apart.
type stand struct {
	postgres *stack.Postgres
	s3       *stack.S3
	proxy    *stack.S3Proxy
	bin      *stack.Binaries
	temp     string // programs, and the servers' temporary directories
	token    string
}

const (
	database = "tramo"
	secret   = "a secret that only this benchmark knows of"
)

func newStand(ctx context.Context) (s *stand, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s = &stand{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.temp, err = os.MkdirTemp("", "tramo-bench-"); err != nil {
		return s, err
	}
	if s.bin, err = stack.Build(ctx, "tramo"); err != nil {
		return s, err
	}
	if err := s.buildStock(ctx); err != nil {
		return s, err
	}
	if s.postgres, err = stack.StartPostgres(ctx, stack.PostgresConfig{Durable: true}); err != nil {
		return s, err
	}
	if s.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return s, err
	}
	if s.proxy, err = stack.NewS3Proxy(s.s3.Endpoint()); err != nil {
		return s, err
	}
	return s, s.prepareTramo(ctx)
}

func (s *stand) stop() error {
	var errs []error
	if s.proxy != nil {
		s.proxy.Stop()
	}
	if s.s3 != nil {
		errs = append(errs, s.s3.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	if s.bin != nil {
		errs = append(errs, s.bin.Remove())
	}
	return errors.Join(append(errs, os.RemoveAll(s.temp))...)
}

func (s *stand) buildStock(ctx context.Context) error {
	root, err := stack.RepoRoot()
	if err != nil {
		return err
	}
	_, err = stack.Run(ctx, stack.ProcessConfig{
		Path: "go", Args: []string{"build", "-o", s.stockPath(), "./test/bench/stocktusd"}, Dir: root, Env: os.Environ(),
	})
	return err
}

func (s *stand) stockPath() string { return filepath.Join(s.temp, "stocktusd") }

// prepareTramo migrates, makes a tenant that may store anything, and a token for one of its crew.
func (s *stand) prepareTramo(ctx context.Context) error {
	if err := s.postgres.CreateDatabase(ctx, database, "template0"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"migrate"},
		{"tenant", "add", "bench", "--quota", "100TiB"},
		{"token", "--tenant", "bench", "--user", "crew", "--role", "empleado", "--ttl", "24h"},
	} {
		out, err := stack.Run(ctx, stack.ProcessConfig{Path: s.bin.Path("tramo"), Args: args, Env: s.tramoEnv("postgres")})
		if err != nil {
			return err
		}
		s.token = strings.TrimSpace(out) // of the last one
	}
	return nil
}

func (s *stand) tramoEnv(role string) []string {
	return stack.CleanEnv(append(s.s3.Env(),
		"TRAMO_DATABASE_URL="+s.postgres.URL(role, database),
		"TRAMO_JWT_SECRET="+secret,
	)...)
}

// A peer is what uploads go to.
type peer string

const (
	tramo    peer = "Tramo"
	stock    peer = "tusd"          // 50 MiB parts by way of temporary files
	tuned    peer = "tusd tuned"    // 8 MiB parts in memory
	unhashed peer = "tusd unhashed" // tuned, and content neither hashed nor signed
	bare     peer = "bare S3"       // no server: a client of S3
)

// A server is a running peer.
type server struct {
	peer    peer
	process *stack.Process
	url     string // where uploads are created
	token   string
	temp    string // where it may keep temporary files
}

// serve starts a fresh process of peer, so that its peaks are its own, over the S3 server at endpoint.
func (s *stand) serve(ctx context.Context, p peer, endpoint string) (*server, error) {
	temp, err := os.MkdirTemp(s.temp, "server-")
	if err != nil {
		return nil, err
	}
	started := s.serveStock
	if p == tramo {
		started = s.serveTramo
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	sv := &server{peer: p, temp: temp}
	if err := started(ctx, sv, endpoint); err != nil {
		return nil, errors.Join(err, sv.stop())
	}
	return sv, nil
}

func (s *stand) serveTramo(ctx context.Context, sv *server, endpoint string) (err error) {
	env := append(s.tramoEnv("tramo_api"),
		"TRAMO_S3_ENDPOINT="+endpoint, "TRAMO_S3_BUCKET="+s.s3.Bucket(),
		"TRAMO_LISTEN=127.0.0.1:0", "TRAMO_OPS_LISTEN=127.0.0.1:0",
		"TRAMO_MAX_UPLOAD_SIZE=2GiB", "TRAMO_LOG_FORMAT=text", "TMPDIR="+sv.temp,
		fmt.Sprintf("TRAMO_MAX_BATCH=%d", kickoff),
		fmt.Sprintf("TRAMO_LISTENERS_PER_USER=%d", ears), fmt.Sprintf("TRAMO_LISTENERS_PER_TENANT=%d", ears),
	)
	env = append(env, stack.NoRateLimits()...) // all clients are one user at one address
	sv.token = s.token
	if sv.process, err = stack.Start(stack.ProcessConfig{Path: s.bin.Path("tramo"), Args: []string{"serve"}, Env: env}); err != nil {
		return err
	}
	ops, err := sv.logged(ctx, `msg="serving operations" address=`)
	if err != nil {
		return err
	}
	address, err := sv.logged(ctx, "msg=serving address=")
	if err != nil {
		return err
	}
	sv.url = "http://" + address + "/api/uploads"
	return sv.process.WaitForURL(ctx, "http://"+ops+"/readyz")
}

func (s *stand) serveStock(ctx context.Context, sv *server, endpoint string) (err error) {
	args := []string{"-endpoint", endpoint, "-bucket", s.s3.Bucket()}
	env := stack.CleanEnv(append(s.s3.Env(), "TMPDIR="+sv.temp)...)
	if sv.peer != stock {
		args = append(args, "-part-size", strconv.Itoa(partSize), "-disable-content-hashes="+strconv.FormatBool(sv.peer == unhashed))
		env = append(env, "TUSD_S3STORE_TEMP_MEMORY=1") // as s3store reads it
	}
	if sv.process, err = stack.Start(stack.ProcessConfig{Path: s.stockPath(), Args: args, Env: env}); err != nil {
		return err
	}
	address, err := sv.logged(ctx, "stock tusd on ")
	sv.url = "http://" + address + "/files/"
	return err
}

// logged waits for the server to print text and returns the rest of that line.
func (sv *server) logged(ctx context.Context, text string) (string, error) {
	if err := sv.process.WaitForLog(ctx, text); err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(sv.process.Output(), text)
	line, _, _ := strings.Cut(rest, "\n")
	return line, nil
}

// stop ends the server in order, and with it every request that it still has.
func (sv *server) stop() error {
	err := error(nil)
	if sv.process != nil {
		if err = sv.process.Stop(); err != nil {
			out := sv.process.Output()
			err = fmt.Errorf("%w\n%s", err, out[max(0, len(out)-4000):])
		}
	}
	return errors.Join(err, os.RemoveAll(sv.temp))
}

// kill ends a server whose clients are silent and would keep it waiting.
func (sv *server) kill() {
	sv.process.Kill()
	sv.process = nil
}

// wipe removes what S3 has stored. No server may be running; what a killed one had begun, S3 may still be writing.
func (s *stand) wipe() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // also after the run was interrupted
	defer cancel()
	bucket := filepath.Join(s.s3.Dir(), s.s3.Bucket())
	var left error
	err := poll(ctx, func() (bool, error) {
		entries, err := os.ReadDir(bucket)
		left = nil
		for _, e := range entries {
			left = errors.Join(left, os.RemoveAll(filepath.Join(bucket, e.Name())))
		}
		return left == nil, err
	})
	return errors.Join(err, left)
}
