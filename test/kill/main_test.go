// Package kill ends workers, their children, clamd, S3 and Postgres with kill -9 at each step of an upload's processing. Each
// upload comes to one end, with one set of thumbnails. It imports nothing of ours but test/stack.
package kill

import (
	"testing"

	"github.com/tramo/tramo/test/stack"
)

var ground stack.Ground

func TestMain(m *testing.M) { ground.Main(m) }
