package clamd

import (
	"testing"

	"github.com/tramo/tramo/test/stack"
)

var ground = stack.Ground{Known: known}

func TestMain(m *testing.M) { ground.Main(m) }

// known is EICAR alone, also where freshclam has a database.
func known() map[string][]byte { return map[string][]byte{"Eicar-Test-HDB": []byte(stack.EICAR())} }

// startClamd runs a clamd of the test's own, with lines of clamd.conf.
func startClamd(t *testing.T, lines ...string) *stack.Clamd {
	t.Helper()
	own, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Known: known(), Extra: lines})
	stack.Must(t, err)
	t.Cleanup(func() { _ = own.Stop() })
	return own
}
