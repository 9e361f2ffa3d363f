package clamd

import (
	"context"
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// common is the clamd that the tests share, and the directory of its signatures: EICAR's alone.
var common struct {
	*stack.Clamd
	dir string
}

var setUp = sync.OnceValue(func() (err error) {
	if common.dir, err = os.MkdirTemp("", "tramo-signatures-"); err != nil {
		return err
	}
	eicar := []byte(stack.EICAR())
	signature := fmt.Sprintf("%x:%d:Eicar-Test-HDB\n", md5.Sum(eicar), len(eicar))
	if err := os.WriteFile(filepath.Join(common.dir, "tramo.hdb"), []byte(signature), 0o600); err != nil {
		return err
	}
	common.Clamd, err = stack.StartClamd(context.Background(), stack.ClamdConfig{Database: common.dir})
	return err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if common.Clamd != nil {
		if err := common.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(common.dir)
	os.Exit(code)
}

// shared returns the address of the clamd that the tests share.
func shared(t *testing.T) string {
	t.Helper()
	if err := setUp(); err != nil {
		t.Fatal(err)
	}
	return common.Address()
}

// startClamd runs a clamd of the test's own, with lines of clamd.conf.
func startClamd(t *testing.T, lines ...string) *stack.Clamd {
	t.Helper()
	shared(t)
	own, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Database: common.dir, Extra: lines})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop() })
	return own
}
