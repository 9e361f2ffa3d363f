package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// A site is one installation: a database and a bucket of its own, and replicas of tramo serve, which reach S3 through a
// proxy.
type site struct {
	*stack.Installation
	s3       *stack.S3Proxy
	replicas []*replica
	journal  *journal
	tenant   string // its id
	token    string
	seal     seal
}

// newSite makes an installation on a Postgres of its own and starts it. Remove it, however far this came.
func newSite(ctx context.Context, postgres *stack.Postgres, name string, j *journal) (s *site, err error) {
	s = &site{journal: j}
	if s.seal, err = receipts(); err != nil {
		return s, err
	}
	if s.Installation, err = ground.Install(ctx, stack.Installation{Database: name, Bucket: name, Postgres: postgres}); err != nil {
		return s, err
	}
	if s.s3, err = stack.NewS3Proxy(s.S3.Endpoint()); err != nil {
		return s, err
	}
	s.Endpoint = s.s3.Endpoint()
	if s.tenant, err = s.Tramo(ctx, "tenant", "add", "chaos", "--quota", "50GiB"); err != nil {
		return s, err
	}
	if s.token, err = s.Tramo(ctx, "token", "--tenant", "chaos", "--user", "crew", "--role", "empleado"); err != nil {
		return s, err
	}
	for i := range replicas {
		r, err := s.newReplica(i)
		if err != nil {
			return s, err
		}
		s.replicas = append(s.replicas, r)
		if err := r.start(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// urls returns the replicas' addresses.
func (s *site) urls() []string {
	var urls []string
	for _, r := range s.replicas {
		urls = append(urls, "http://"+r.addr)
	}
	return urls
}

func (s *site) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.Postgres.URL("postgres", s.Database))
}

// halt stops the replicas in order.
func (s *site) halt() (err error) {
	for _, r := range s.replicas {
		err = errors.Join(err, r.stop())
	}
	return err
}

// calm ends S3's faults and waits until it has seen every request that was held back.
func (s *site) calm(ctx context.Context) {
	s.s3.Fault(nil)
	s.s3.SetLatency(0)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.s3.InFlight() > 0 && ctx.Err() == nil {
		<-tick.C
	}
}

// remove leaves nothing behind.
func (s *site) remove(ctx context.Context) (err error) {
	for _, r := range s.replicas {
		r.kill()
	}
	if s.s3 != nil {
		s.s3.Stop()
	}
	if s.Installation == nil {
		return nil
	}
	err = os.RemoveAll(filepath.Join(s.S3.Dir(), s.Bucket))
	conn, connErr := pgx.Connect(ctx, s.Postgres.AdminURL())
	if connErr != nil {
		return errors.Join(err, connErr)
	}
	defer conn.Close(ctx)
	_, dropErr := conn.Exec(ctx, "drop database if exists "+pgx.Identifier{s.Database}.Sanitize()+" with (force)")
	return errors.Join(err, dropErr)
}

// A replica is a tramo serve that keeps its address when it is started again.
type replica struct {
	name, addr, ops string
	config          stack.ProcessConfig
	journal         *journal

	mu      sync.Mutex // one fault at a time
	process *stack.Process
	expects *atomic.Bool // that the process ends
	output  strings.Builder
}

func (s *site) newReplica(i int) (*replica, error) {
	addr, err := quietAddr()
	if err != nil {
		return nil, err
	}
	ops, err := quietAddr()
	if err != nil {
		return nil, err
	}
	return &replica{
		name: fmt.Sprintf("replica %d", i), addr: addr, ops: ops, journal: s.journal,
		config: s.Server("TRAMO_RECEIPT_KEY_FILE="+s.seal.file, "TRAMO_LISTEN="+addr, "TRAMO_OPS_LISTEN="+ops, "TRAMO_LEASE_TTL="+leaseTTL.String(),
			fmt.Sprintf("TRAMO_PART_SIZE=%d", partSize), "TRAMO_LOG_LEVEL=debug"),
	}, nil
}

// start starts the replica, again and again until it is ready, as Kubernetes does.
func (r *replica) start(ctx context.Context) error {
	for {
		p, err := stack.Start(r.config)
		if err != nil {
			return err
		}
		expects := new(atomic.Bool)
		expects.Store(true) // it may die of a dependency that is down, while it starts
		r.process, r.expects = p, expects
		err = p.WaitForURL(ctx, "http://"+r.ops+"/readyz")
		if err == nil {
			expects.Store(false)
			go func() {
				<-p.Exited()
				if !expects.Load() {
					r.journal.violate("", "%s ended by itself: %v\n%s", r.name, p.Wait(context.Background()), last(p.Output(), 3000))
				}
			}()
			return nil
		}
		r.kill()
		if ctx.Err() != nil {
			return fmt.Errorf("start %s: %w", r.name, err)
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// kill ends the replica with -9.
func (r *replica) kill() {
	if r.process != nil {
		r.expects.Store(true)
		r.process.Kill()
		r.output.WriteString(r.process.Output())
		r.process = nil
	}
}

// stop ends the replica with SIGTERM.
func (r *replica) stop() error {
	if r.process == nil {
		return nil
	}
	r.expects.Store(true)
	err := r.process.Stop()
	r.output.WriteString(r.process.Output())
	r.process = nil
	return err
}

// freeze stops the replica's clock for d.
func (r *replica) freeze(ctx context.Context, d time.Duration) error {
	if err := r.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, d)
	return r.process.Signal(syscall.SIGCONT)
}

// said returns the lines of the replica's log that contain one of ids, and those above debug.
func (r *replica) said(ids ...string) string {
	if r.process != nil {
		r.output.WriteString(r.process.Output())
	}
	var b strings.Builder
	for line := range strings.Lines(r.output.String()) {
		concerned := !strings.Contains(line, "level=DEBUG") && !strings.Contains(line, "upload_id=")
		for _, id := range ids {
			concerned = concerned || strings.Contains(line, id)
		}
		if concerned {
			b.WriteString("  " + line)
		}
	}
	return last(b.String(), 20_000)
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// quietAddr returns a free loopback address that the kernel gives no connection of its own while its server is down: one
// below the range of ephemeral ports (ip(7), ip_local_port_range).
func quietAddr() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("find a free port between 20000 and 32000 on 127.0.0.1")
}
