package processing

import (
	"testing"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

var ground = storagetest.Ground{Ground: stack.Ground{Known: signatures}}

func TestMain(m *testing.M) { ground.Main(m) }

// signatures are a photo that can be drawn, so that a test can tell that it was not, and EICAR.
func signatures() map[string][]byte {
	return map[string][]byte{"Tramo-Photo-HDB": infectedPhoto(), "Eicar-Test-HDB": []byte(stack.EICAR())}
}

func infectedPhoto() []byte {
	return stack.Photo(stack.PhotoConfig{Width: 320, Height: 240, Seed: 666})
}

func newScanner(t *testing.T, address string) *clamd.Scanner {
	t.Helper()
	s, err := clamd.New(address, clamd.Timeouts{})
	stack.Must(t, err)
	return s
}

// startClamd runs a clamd that the test may kill, in a directory and with lines of clamd.conf of its own.
func startClamd(t *testing.T, lines ...string) (clamd *stack.Clamd, dir string) {
	t.Helper()
	dir = t.TempDir()
	clamd, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Dir: dir, Known: signatures(), Extra: lines})
	stack.Must(t, err)
	t.Cleanup(func() { _ = clamd.Stop() })
	return clamd, dir
}

// proxied returns a proxy to S3, through which the pipeline goes from now on.
func (p *fixture) proxied(t *testing.T) *stack.S3Proxy {
	t.Helper()
	proxy, err := stack.NewS3Proxy(stack.Get(t, ground.S3).Endpoint())
	stack.Must(t, err)
	t.Cleanup(proxy.Stop)
	p.reach(t, proxy.Endpoint())
	return proxy
}
