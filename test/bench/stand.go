package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// startTime is how long a server may take until it serves.
const startTime = 2 * time.Minute

// A stand is where servers are measured: a Postgres that syncs, an S3 server, and a proxy before it that counts and
// delays. Servers are processes of their own, so that their use of resources can be measured apart.
type stand struct {
	ground stack.Ground
	*stack.Installation
	proxy  *stack.S3Proxy
	ledger *ledger // of Postgres
	temp   string  // programs, and the servers' temporary directories
	token  string  // of a tenant that may store anything

	profiles *profiles // nil unless asked for
}

func newStand(ctx context.Context) (s *stand, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	s = &stand{ledger: &ledger{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.temp, err = os.MkdirTemp("", "tramo-bench-"); err != nil {
		return s, err
	}
	s.ground.AfterAll(func() error { return os.RemoveAll(s.temp) })
	if err := s.buildStock(ctx); err != nil {
		return s, err
	}
	postgres, err := stack.StartPostgres(ctx, stack.PostgresConfig{Durable: true, Log: s.ledger})
	if err != nil {
		return s, err
	}
	s.ground.AfterAll(postgres.Stop)
	if s.Installation, err = s.ground.Install(ctx, stack.Installation{Database: "tramo", Postgres: postgres}); err != nil {
		return s, err
	}
	if s.proxy, err = stack.NewS3Proxy(s.S3.Endpoint()); err != nil {
		return s, err
	}
	s.ground.AfterAll(func() error { s.proxy.Stop(); return nil })
	s.token, err = s.tenant(ctx, "bench", "100TiB")
	return s, err
}

func (s *stand) stop() error { return s.ground.Stop() }

func (s *stand) buildStock(ctx context.Context) error {
	root, err := stack.RepoRoot()
	if err != nil {
		return err
	}
	_, err = stack.Run(ctx, stack.ProcessConfig{
		Path: "go", Args: []string{"build", "-o", s.stockPath(), "./test/bench/stocktusd"}, Dir: root,
	})
	return err
}

func (s *stand) stockPath() string { return filepath.Join(s.temp, "stocktusd") }

// A peer is what uploads go to.
type peer string

const (
	tramo    peer = "Tramo"
	stock    peer = "tusd"          // 50 MiB parts by way of temporary files
	tuned    peer = "tusd tuned"    // 8 MiB parts in memory
	unhashed peer = "tusd unhashed" // tuned, and content neither hashed nor signed
	bare     peer = "bare S3"       // no server: a client of S3
)

// A server is a running peer, or the bare client in place of one.
type server struct {
	peer    peer
	process *stack.Process // nil for the bare client
	bare    *bareClient    // nil for a process
	url     string         // where uploads are created
	token   string
	temp    string // where it may keep temporary files

	profiled func() // ends its profiles
}

// serve starts a fresh process of peer, so that its peaks are its own, over the S3 server at endpoint.
func (s *stand) serve(ctx context.Context, p peer, endpoint string) (*server, error) {
	if p == bare {
		return &server{peer: p, bare: s.bare(endpoint)}, nil
	}
	temp, err := os.MkdirTemp(s.temp, "server-")
	if err != nil {
		return nil, err
	}
	started := s.serveStock
	switch p {
	case tramo:
		started = s.serveTramo
	case legacy:
		started = s.serveLegacy
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	sv := &server{peer: p, temp: temp}
	if err := started(ctx, sv, endpoint); err != nil {
		return nil, errors.Join(err, sv.stop())
	}
	return sv, nil
}

func (s *stand) serveTramo(ctx context.Context, sv *server, endpoint string) error {
	r, err := s.Serve(ctx, append(s.profiles.env(), "TRAMO_S3_ENDPOINT="+endpoint, "TRAMO_MAX_UPLOAD_SIZE=2GiB", "TMPDIR="+sv.temp,
		fmt.Sprintf("TRAMO_MAX_BATCH=%d", kickoff),
		fmt.Sprintf("TRAMO_LISTENERS_PER_USER=%d", listenerCount), fmt.Sprintf("TRAMO_LISTENERS_PER_TENANT=%d", listenerCount),
	)...)
	sv.process, sv.url, sv.token = r.Process, r.URL+"/api/uploads", s.token
	if err == nil {
		sv.profiled = s.profiles.watch("server", r.Ops)
	}
	return err
}

func (s *stand) serveStock(ctx context.Context, sv *server, endpoint string) (err error) {
	args := []string{"-endpoint", endpoint, "-bucket", s.S3.Bucket()}
	env := stack.CleanEnv(append(s.S3.Env(), "TMPDIR="+sv.temp)...)
	if sv.peer != stock {
		args = append(args, "-part-size", strconv.Itoa(partSize), "-disable-content-hashes="+strconv.FormatBool(sv.peer == unhashed))
		env = append(env, "TUSD_S3STORE_TEMP_MEMORY=1") // as s3store reads it
	}
	if sv.process, err = stack.Start(stack.ProcessConfig{Path: s.stockPath(), Args: args, Env: env}); err != nil {
		return err
	}
	address, err := sv.process.WaitForLine(ctx, "stock tusd on ")
	sv.url = "http://" + address + "/files/"
	return err
}

// stop ends the server in order, and with it every request that it still has.
func (sv *server) stop() error {
	var err error
	sv.endProfiles()
	if sv.process != nil {
		if err = sv.process.Stop(); err != nil {
			err = fmt.Errorf("%w\n%s", err, sv.process.LastOutput())
		}
	}
	return errors.Join(err, os.RemoveAll(sv.temp))
}

// kill ends a server whose clients are silent and would keep it waiting.
func (sv *server) kill() {
	sv.endProfiles()
	sv.process.Kill()
	sv.process = nil
}

func (sv *server) endProfiles() {
	if sv.profiled != nil {
		sv.profiled()
	}
}

// wipe removes what S3 has stored. No server may be running; what a killed one had begun, S3 may still be writing.
func (s *stand) wipe() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // also after the run was interrupted
	defer cancel()
	bucket := filepath.Join(s.S3.Dir(), s.S3.Bucket())
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
