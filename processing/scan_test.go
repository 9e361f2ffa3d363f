package processing

import (
	"bytes"
	"testing"

	"github.com/tramo/tramo/storage"
)

// What is larger than clamd takes fails, or passes, as the policy says: whether our own number says so or clamd's. It is
// never called scanned, and is compared with what was received all the same.
func TestOversize(t *testing.T) {
	t.Parallel()
	const largest = 1 << 20
	content := bytes.Repeat([]byte("hormigón\n"), largest/8)
	other := append([]byte("H"), content[1:]...)
	for _, c := range []struct {
		name   string
		policy ScanPolicy
		clamd  string // a line of its configuration
		stored []byte
		status storage.Status
		reason string
	}{
		{"fails", ScanPolicy{Max: largest}, "", content, storage.Failed, storage.ReasonTooLargeToScan},
		{"passes", ScanPolicy{Max: largest, Oversize: PassOversize}, "", content, storage.Completed, ""},
		{"clamd takes less, fails", ScanPolicy{Max: 1 << 30}, "StreamMaxLength 1M", content, storage.Failed, storage.ReasonTooLargeToScan},
		{"clamd takes less, passes", ScanPolicy{Max: 1 << 30, Oversize: PassOversize}, "StreamMaxLength 1M", content, storage.Completed, ""},
		{"passes, but is another", ScanPolicy{Max: largest, Oversize: PassOversize}, "", other, storage.Failed, storage.ReasonDeadLettered},
		{"just fits", ScanPolicy{Max: int64(len(content))}, "", content, storage.Completed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			if c.clamd != "" {
				own, _ := startClamd(t, c.clamd)
				p.pipeline.Scanner = newScanner(t, own.Address())
			}
			p.pipeline.Scans = c.policy
			id := p.receive(t, content, c.stored, 1)
			p.run(t)
			p.await(t, `select bool_and(state in ('completed', 'discarded')) from river_job`)
			p.want(t, id, c.status, c.reason, 0, 1)
			want := map[bool]string{true: "oversize_passed", false: "clean"}[c.policy.Oversize == PassOversize]
			if got := p.scanned(t, id); c.status == storage.Completed && got != want || c.status == storage.Failed && got != "" {
				t.Errorf("the scan is %q", got)
			}
			if c.policy.Oversize == PassOversize && c.status == storage.Completed { // a rescan leaves it what it is
				p.rescan(t, id)
				p.await(t, idle)
				p.want(t, id, c.status, c.reason, 0, 1)
				p.wantScan(t, id, want)
			}
		})
	}
}

// A policy beyond what clamd can be made to look into is refused.
func TestScanPolicy(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{0, -1, 2 << 30} {
		if (ScanPolicy{Max: limit, Oversize: FailOversize}).Validate() == nil {
			t.Errorf("%d is accepted", limit)
		}
	}
	if err := (ScanPolicy{Max: 2<<30 - 1, Oversize: FailOversize}).Validate(); err != nil {
		t.Error(err)
	}
}
