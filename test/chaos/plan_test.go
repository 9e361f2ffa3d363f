package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// What every run has in common.
const (
	replicas = 2
	partSize = 5 << 20
	leaseTTL = time.Second
	storm    = 4 * time.Second // how long faults go on
)

// A plan is all that is decided about a run. It depends on its seed and on nothing else.
type plan struct {
	seed    uint64
	uploads []uploadPlan
	faults  []faultPlan
	s3      []s3Plan
	steps   []stepPlan
	latency time.Duration // of S3
}

// An uploadPlan says what is sent, and how.
type uploadPlan struct {
	name     string // the client_id
	size     int
	node     bool          // by tus-js-client
	racers   int           // how many clients send it at once
	pace     int           // bytes a second; 0 for as fast as it goes
	chunk    int           // bytes a PATCH; 0 for all at once
	withBody bool          // creation-with-upload
	hashed   bool          // sends its SHA-256
	shaky    int           // how many of its first connections are cut
	patient  bool          // bears silence for longer than faults last, as tus-js-client does
	start    time.Duration // after the run's beginning
	replica  int           // where it begins
}

// A faultPlan is one fault of the network, a server or Postgres.
type faultPlan struct {
	at     time.Duration
	kind   string
	target int           // an upload or a replica
	length time.Duration // how long it lasts
	bytes  int64         // after how many bytes a connection is cut
}

// An s3Plan has a fault for requests first to first+count-1 of a kind.
type s3Plan struct {
	kind         string
	first, count int
	fault        stack.Fault
}

// Faults of the network, by upload, and of machines.
const (
	cutNow       = "cut"
	cutLater     = "cut after bytes"
	stall        = "stall"
	killReplica  = "kill -9"
	freeze       = "freeze"
	stopReplica  = "SIGTERM"
	restartStore = "restart Postgres"
	severStore   = "sever from Postgres"   // the connections of one replica break
	silenceStore = "silence from Postgres" // and fall silent
)

// newPlan draws a run.
func newPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 0x7472616d6f))
	p := plan{seed: seed}
	budget := 70 << 20
	for i := range 4 + r.IntN(6) {
		u := drawUpload(r, i)
		if budget -= u.size * u.racers; budget < 0 {
			break
		}
		p.uploads = append(p.uploads, u)
	}
	for range 4 + r.IntN(7) {
		p.faults = append(p.faults, drawFault(r, len(p.uploads)))
	}
	for range 1 + r.IntN(9) {
		p.s3 = append(p.s3, drawS3(r))
	}
	for range 2 + r.IntN(6) {
		p.steps = append(p.steps, drawStep(r))
	}
	if r.IntN(3) == 0 {
		p.latency = between(r, time.Millisecond, 30*time.Millisecond)
	}
	return p
}

func drawUpload(r *rand.Rand, i int) uploadPlan {
	u := uploadPlan{
		name:     fmt.Sprintf("upload-%d", i),
		size:     drawSize(r),
		racers:   1,
		withBody: r.IntN(3) == 0,
		hashed:   r.IntN(2) == 0,
		start:    between(r, 0, 2500*time.Millisecond),
		replica:  r.IntN(replicas),
	}
	if r.IntN(3) > 0 {
		u.pace = int(float64(u.size) / between(r, time.Second, 4*time.Second).Seconds())
	}
	u.patient = r.IntN(3) == 0
	if r.IntN(4) == 0 {
		u.chunk = 200_000 + r.IntN(6<<20)
	}
	switch r.IntN(6) {
	case 0:
		u.racers = 2
	case 1:
		u.node = true
	case 2, 3:
		u.shaky = 1 + r.IntN(4)
	}
	return u
}

// drawSize prefers the edges: one byte, whole parts. Nothing at all is refused by policy.
func drawSize(r *rand.Rand) int {
	switch r.IntN(12) {
	case 0:
		return []int{1, partSize - 1, partSize, partSize + 1, 2 * partSize}[r.IntN(5)]
	case 1, 2, 3, 4, 5:
		return partSize + r.IntN(20<<20)
	}
	return 100_000 + r.IntN(partSize)
}

func drawFault(r *rand.Rand, uploads int) faultPlan {
	f := faultPlan{at: between(r, 200*time.Millisecond, storm)}
	switch n := r.IntN(23); {
	case n < 3:
		f.kind, f.target = cutNow, r.IntN(uploads)
	case n < 5:
		f.kind, f.target, f.bytes = cutLater, r.IntN(uploads), int64(50_000+r.IntN(3<<20))
	case n < 9:
		f.kind, f.target, f.length = stall, r.IntN(uploads), between(r, 500*time.Millisecond, 3*time.Second)
	case n < 12:
		f.kind, f.target, f.length = killReplica, r.IntN(replicas), between(r, 0, time.Second)
	case n < 17:
		f.kind, f.target, f.length = freeze, r.IntN(replicas), between(r, leaseTTL+500*time.Millisecond, 4*leaseTTL)
	case n < 19:
		f.kind, f.target = stopReplica, r.IntN(replicas)
	case n < 20:
		f.kind, f.target = severStore, r.IntN(replicas)
	case n < 22:
		f.kind, f.target, f.length = silenceStore, r.IntN(replicas), between(r, 500*time.Millisecond, 3*leaseTTL)
	default:
		f.kind = restartStore
	}
	return f
}

// drawS3 prefers requests that there are in most runs.
func drawS3(r *rand.Rand) s3Plan {
	kinds := []string{
		"PutObject", "PutObject", "PutObject", "UploadPart", "UploadPart", "UploadPart", "CreateMultipartUpload", "CreateMultipartUpload",
		"CompleteMultipartUpload", "CompleteMultipartUpload", "CompleteMultipartUpload", "HeadObject", "GetObject", "DeleteObject",
		"DeleteObjects", "AbortMultipartUpload", "UploadPartCopy", "ListParts", "ListObjectsV2", "ListMultipartUploads",
	}
	p := s3Plan{kind: kinds[r.IntN(len(kinds))], first: 1 + r.IntN(5), count: 1 + r.IntN(8)}
	if strings.HasSuffix(p.kind, "MultipartUpload") {
		p.first = 1 + r.IntN(2) // there are few
	}
	p.fault.After = r.IntN(2) == 0
	switch r.IntN(6) {
	case 0:
		p.fault.Status = 500
	case 1:
		p.fault.Status, p.fault.Code = 503, "SlowDown"
	case 2, 5:
		p.fault.Status, p.fault.Code = 403, "AccessDenied" // which no SDK tries again
	case 3:
		p.fault.Cut = true
	case 4:
		p.fault.Delay = between(r, 200*time.Millisecond, 3*time.Second)
	}
	return p
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// String lists the plan, one line each.
func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, S3 latency %s\n", p.seed, p.latency)
	for _, u := range p.uploads {
		fmt.Fprintf(&b, "  %+v\n", u)
	}
	for _, f := range p.faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	for _, s := range p.s3 {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	for _, s := range p.steps {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	return b.String()
}

func (f faultPlan) String() string {
	return fmt.Sprintf("%s of %d at %s, lasts %s, after %d bytes", f.kind, f.target, f.at, f.length, f.bytes)
}

func (s s3Plan) String() string {
	when := "before S3 hears of it"
	if s.fault.After {
		when = "after S3 has done it"
	}
	return fmt.Sprintf("S3 %s, %d from number %d, %s: status %d, cut %v, delay %s", s.kind, s.count, s.first, when, s.fault.Status, s.fault.Cut, s.fault.Delay)
}
