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

// A site is one installation: a database and a bucket of its own, and replicas of tramo serve, which reach S3 and Postgres
// through proxies.
type site struct {
	*stack.Installation
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
	if s.tenant, err = s.Tramo(ctx, "tenant", "add", "chaos", "--quota", "50GiB"); err != nil {
		return s, err
	}
	if s.token, err = s.Tramo(ctx, "token", "--tenant", "chaos", "--user", "crew", "--role", "empleado"); err != nil {
		return s, err
	}
	for i := range replicas {
		r := &replica{name: fmt.Sprintf("replica %d", i), journal: s.journal}
		s.replicas = append(s.replicas, r)
		if err := s.equip(r); err != nil {
			return s, err
		}
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
		r.mu.Lock() // until the last fault is over
		err = errors.Join(err, r.stop())
		r.mu.Unlock()
	}
	return err
}

// calm ends S3's faults and waits until it has seen every request that was held back.
func (s *site) calm(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, r := range s.replicas {
		r.s3.Fault(nil)
		r.s3.SetLatency(0)
		for r.s3.InFlight() > 0 && ctx.Err() == nil {
			<-tick.C
		}
	}
}

// remove leaves nothing behind.
func (s *site) remove(ctx context.Context) (err error) {
	for _, r := range s.replicas {
		r.remove()
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
	s3              *stack.S3Proxy
	postgres        *stack.PostgresProxy
	toPostgres      *line // before that

	mu      sync.Mutex // one fault at a time
	process *stack.Process
	expects *atomic.Bool // that the process ends
	severed atomic.Bool  // an answer of Postgres to the process may have been lost
	output  strings.Builder
}

// equip gives a replica what it needs to start.
func (s *site) equip(r *replica) (err error) {
	if r.s3, err = stack.NewS3Proxy(s.S3.Endpoint()); err != nil {
		return err
	}
	if r.postgres, err = stack.NewPostgresProxy(s.Postgres); err != nil {
		return err
	}
	if r.toPostgres, err = newLine(r.postgres.Addr()); err != nil {
		return err
	}
	if r.addr, err = quietAddr(); err != nil {
		return err
	}
	if r.ops, err = quietAddr(); err != nil {
		return err
	}
	url := r.postgres.URL(strings.TrimPrefix(r.toPostgres.url(), "http://"), "tramo_api", s.Database)
	r.config = s.Server("TRAMO_DATABASE_URL="+url, "TRAMO_S3_ENDPOINT="+r.s3.Endpoint(), "TRAMO_RECEIPT_KEY_FILE="+s.seal.file,
		"TRAMO_LISTEN="+r.addr, "TRAMO_OPS_LISTEN="+r.ops, "TRAMO_REPLICA="+r.name, "TRAMO_LEASE_TTL="+leaseTTL.String(),
		fmt.Sprintf("TRAMO_PART_SIZE=%d", partSize), "TRAMO_LOG_LEVEL=debug")
	return nil
}

// remove ends the replica and what is before it.
func (r *replica) remove() {
	r.kill()
	if r.toPostgres != nil {
		r.toPostgres.close()
	}
	if r.postgres != nil {
		r.postgres.Stop()
	}
	if r.s3 != nil {
		r.s3.Stop()
	}
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
		r.severed.Store(false)
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

// freeze stops the replica's clock for d, and for what happens in the end.
func (r *replica) freeze(ctx context.Context, d time.Duration, inTheEnd func()) error {
	if err := r.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, d)
	inTheEnd()
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
