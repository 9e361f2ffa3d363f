package main

import (
	"context"
	"testing"
	"time"
)

// enough is more than any of these uploads takes.
const enough = 3 * time.Minute

// An upload costs no more S3 requests than its row in docs/explanation/benchmarks.md allows. One whose connection is cut costs few
// more bytes, and none that the server had received is sent again. These tests share a proxy that counts, so they run
// one after the other.
func TestRequestsOfAnUpload(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), enough)
			defer cancel()
			got, err := shared.count(ctx, tramo, sc)
			if err != nil {
				t.Fatal(err)
			}
			if got.total > sc.most {
				t.Errorf("%d requests to S3 (%s); %s = %d are enough", got.total, got, sc.why, sc.most)
			}
			if got.written < 1 {
				t.Errorf("%.2f bytes written to S3 for each byte of the upload; some are not there", got.written)
			}
			if sc.cuts > 0 && got.written > writtenOver {
				t.Errorf("%.2f bytes written to S3 for each byte of the upload; %.1f are enough (%s)", got.written, writtenOver, got)
			}
			if got.resent > 0 {
				t.Errorf("%d bytes that the server had received were sent again", got.resent)
			}
		})
	}
}

// The counts are right: stock tusd needs what its source says, and so does a client without a server.
func TestCounting(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	for i, want := range []int{7, 4} {
		got, err := shared.count(ctx, stock, scenarios[i])
		if err != nil {
			t.Fatal(err)
		}
		if got.total != want {
			t.Errorf("%s: stock tusd needs %d requests (%s), not %d", scenarios[i].name, got.total, got, want)
		}
	}
	for size, want := range map[int64]float64{photo: 1, 20 * mb: float64(partsOf(20*mb)) + 2} {
		got, err := shared.countBare(ctx, size)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("a client without a server needs %v requests for %d bytes, not %v", got, size, want)
		}
	}
}
