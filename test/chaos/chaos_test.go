package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

const (
	// patience is for how long clients may go on after the last fault.
	patience = 40 * time.Second
	// runLimit is for how long a run may take in all.
	runLimit = 2 * time.Minute
)

// Whatever is cut, stalled, killed, frozen, restarted or fails while clients upload: no offset goes back, what is done is
// whole and there once, and every client comes to its end. TRAMO_CHAOS_SEED replays one seed, TRAMO_CHAOS_SEEDS says how many
// new ones to run, or with both how many from that one on.
func TestChaos(t *testing.T) {
	t.Parallel()
	seeds, err := chosenSeeds()
	stack.Must(t, err)
	fmt.Printf("chaos: seeds %v\n", seeds)
	var tally tally
	t.Cleanup(func() { fmt.Print(tally.summary()) })
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			fmt.Printf("chaos: seed %d begins; replay: TRAMO_CHAOS_SEED=%d go test ./test/chaos -run Chaos\n", seed, seed)
			t.Cleanup(func() { tally.add(seed, t.Failed()) })
			survive(t, newPlan(seed), &tally)
		})
	}
}

func chosenSeeds() ([]uint64, error) {
	count, first := 3, uint64(time.Now().Unix())*1000
	if s := os.Getenv("TRAMO_CHAOS_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("TRAMO_CHAOS_SEED: %q is not a seed: give the number that a failed run printed", s)
		}
		count, first = 1, seed
	}
	if s := os.Getenv("TRAMO_CHAOS_SEEDS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 1 {
			return nil, fmt.Errorf("TRAMO_CHAOS_SEEDS: %q is not a number of seeds, 1 or more", s)
		}
	}
	var seeds []uint64
	for i := range uint64(count) {
		seeds = append(seeds, first+i)
	}
	return seeds, nil
}

// A tally counts seeds.
type tally struct {
	mu      sync.Mutex
	passed  int
	failed  []uint64
	orphans map[string]int // by kind
	steps   map[string]int // what was done at moments of steps
}

func (y *tally) add(seed uint64, failed bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if failed {
		y.failed = append(y.failed, seed)
		return
	}
	y.passed++
}

// note notes what was done in a run, and what that has left to be reconciled.
func (y *tally) note(steps map[string]int, orphans []orphan) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.orphans == nil {
		y.orphans, y.steps = map[string]int{}, map[string]int{}
	}
	for _, o := range orphans {
		y.orphans[o.kind]++
	}
	for step, n := range steps {
		y.steps[step] += n
	}
}

func (y *tally) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "chaos: %d seeds passed, %d failed\n", y.passed, len(y.failed))
	fmt.Fprintf(&b, "chaos: before reconciling there were %v of no use\n", y.orphans)
	for _, step := range slices.Sorted(maps.Keys(y.steps)) {
		fmt.Fprintf(&b, "chaos: %4d times %s\n", y.steps[step], step)
	}
	slices.Sort(y.failed)
	for _, seed := range y.failed {
		fmt.Fprintf(&b, "  TRAMO_CHAOS_SEED=%d go test ./test/chaos -run Chaos\n", seed)
	}
	return b.String()
}

// survive runs one plan.
func survive(t *testing.T, p plan, tally *tally) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	j := newJournal()
	s, err := newSite(ctx, servers.take(t), fmt.Sprintf("chaos-%d", p.seed), j)
	t.Cleanup(func() {
		if err := s.remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	stack.Must(t, err)
	j.begun = time.Now()
	r := &execution{t: t, site: s, journal: j, plan: p}
	uploads := r.run(ctx)
	checkReceipts(ctx, s, uploads)
	checkLeases(ctx, s, uploads)
	if err := s.halt(); err != nil {
		j.violate("", "SIGTERM in the end: %v", err)
	}
	s.calm(ctx)
	orphans, err := checkAll(ctx, s, uploads)
	if err != nil {
		t.Error(err)
	}
	tally.note(r.steps.done, orphans)
	r.report(uploads)
}

// An execution runs the clients of one plan while its faults are injected.
type execution struct {
	t       *testing.T
	site    *site
	journal *journal
	plan    plan

	clients  [][]*client // by upload
	fronts   []*line     // by upload: tus-js-client's
	requests sync.WaitGroup
	steps    *saboteur

	mu     sync.Mutex
	rivals int // so far
	racing sync.WaitGroup
}

// run returns when all clients have ended.
func (r *execution) run(ctx context.Context) []*upload {
	r.clients, r.fronts = make([][]*client, len(r.plan.uploads)), make([]*line, len(r.plan.uploads))
	sending, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	var uploads []*upload
	for i, p := range r.plan.uploads {
		u := newUpload(p, r.plan.seed+uint64(i))
		uploads = append(uploads, u)
		for n := range p.racers {
			send := r.goClient(i, n, u)
			if p.node {
				send = r.nodeClient(i, u)
			}
			all.Go(func() {
				pause(sending, p.start)
				if err := send(sending); err != nil {
					r.journal.violate(u.name, "client %d did not come to its end: %v", n, err)
				}
			})
		}
	}
	b := &saboteur{plan: r.plan.steps, site: r.site, journal: r.journal, ctx: ctx}
	r.steps = b
	b.rival = func(upload string, server int) { r.challenge(sending, uploads, upload, server) }
	b.begin()
	w := &injector{plan: r.plan, site: r.site, lines: r.lines, steps: b, journal: r.journal}
	w.run(ctx)
	time.AfterFunc(patience, stop)
	stack.Wait(r.t, "end of the clients", &all)
	b.end()
	stack.Wait(r.t, "end of the rivals", &r.racing)
	stack.Wait(r.t, "end of the requests", &r.requests)
	return uploads
}

// challenge sends an upload once more, by a client that begins at that server, with an address if any client has been told
// one. The saboteur must not have ended.
func (r *execution) challenge(ctx context.Context, uploads []*upload, name string, server int) {
	i := slices.IndexFunc(uploads, func(u *upload) bool { return u.name == name })
	if i < 0 {
		return
	}
	r.mu.Lock()
	r.rivals++
	n := r.rivals
	r.mu.Unlock()
	p := r.plan.uploads[i]
	p.pace, p.shaky = 0, 0
	c := &client{
		name: fmt.Sprintf("rival %d", n), upload: uploads[i], plan: p, journal: r.journal, token: r.site.token, servers: r.site.urls(),
		current: server, random: rand.New(rand.NewPCG(r.plan.seed, uint64(1000+n))), running: &r.requests, steady: true,
	}
	if id := uploads[i].id(); id != "" {
		c.url = "/api/uploads/" + id
	}
	r.racing.Go(func() {
		if err := c.send(ctx); err != nil {
			r.journal.violate(name, "%s did not come to its end: %v", c.name, err)
		}
	})
}

func newUpload(p uploadPlan, seed uint64) *upload {
	u := &upload{name: p.name, data: make([]byte, p.size), ids: map[string]bool{}}
	var key [32]byte
	copy(key[:], strconv.FormatUint(seed, 10))
	_, _ = rand.NewChaCha8(key).Read(u.data) // never errs
	copy(u.data, "\xff\xd8\xff\xe0")         // as a JPEG begins: at random it could begin as a file that is not accepted
	sum := sha256.Sum256(u.data)
	u.sum = hex.EncodeToString(sum[:])
	return u
}

func (r *execution) goClient(i, n int, u *upload) func(context.Context) error {
	p := r.plan.uploads[i]
	c := &client{
		name: fmt.Sprintf("client %d.%d", i, n), upload: u, plan: p, journal: r.journal, token: r.site.token, servers: r.site.urls(),
		current: p.replica + n, random: rand.New(rand.NewPCG(r.plan.seed, uint64(i*10+n))), running: &r.requests,
	}
	r.clients[i] = append(r.clients[i], c)
	return c.send
}

func (r *execution) nodeClient(i int, u *upload) func(context.Context) error {
	front, err := newLine(r.site.urls()...)
	stack.Must(r.t, err)
	r.t.Cleanup(front.close)
	r.fronts[i] = front
	return func(ctx context.Context) error {
		return sendWithTusJS(ctx, r.t.TempDir(), r.site, front.url(), r.plan.uploads[i], u, endless())
	}
}

// lines returns the connections that an upload's clients use now.
func (r *execution) lines(i int) (lines []*line) {
	if l := r.fronts[i]; l != nil {
		return []*line{l}
	}
	for _, c := range r.clients[i] {
		if l := c.network(); l != nil {
			lines = append(lines, l.line)
		}
	}
	return lines
}

// report fails the test with all that concerns what was broken.
func (r *execution) report(uploads []*upload) {
	broken := r.journal.broken()
	if len(broken) == 0 {
		return
	}
	var ids []string
	for _, u := range uploads {
		if slices.ContainsFunc(broken, func(v string) bool { return strings.HasPrefix(v, u.name+":") }) {
			for id := range u.ids {
				ids = append(ids, id)
			}
		}
	}
	r.t.Errorf("%s\n\nplan: %s\nwhat happened:\n%s", strings.Join(broken, "\n"), r.plan, r.journal.describe())
	for _, replica := range r.site.replicas {
		r.t.Logf("%s said:\n%s", replica.name, replica.said(ids...))
	}
}
