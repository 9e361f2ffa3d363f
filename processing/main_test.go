package processing

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// A bench is what the tests have in common. It is set up by the first that asks for it: a fuzzer that only
// reads bytes needs none, and versitygw, which allows one server a process, moves the working directory.
type bench struct {
	cluster *storagetest.Cluster
	s3      *stack.S3
	clamd   *stack.Clamd
	dir     string // of the virus database
}

var shared bench

var setUp = sync.OnceValue(func() error { return shared.start(context.Background()) })

func TestMain(m *testing.M) {
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func stand(t *testing.T) *bench {
	t.Helper()
	stack.Must(t, setUp())
	return &shared
}

func (b *bench) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "tramo-signatures-"); err != nil {
		return err
	}
	// MD5, size and name: of a photo that can be drawn, so that a test can tell that it was not, and of EICAR.
	var signatures string
	for name, content := range map[string][]byte{"Tramo-Photo-HDB": infectedPhoto(), "Eicar-Test-HDB": []byte(stack.EICAR())} {
		signatures += fmt.Sprintf("%x:%d:%s\n", md5.Sum(content), len(content), name)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "tramo.hdb"), []byte(signatures), 0o600); err != nil {
		return err
	}
	if b.clamd, err = stack.StartClamd(ctx, stack.ClamdConfig{Database: b.dir}); err != nil {
		return err
	}
	if b.cluster, err = storagetest.Start(ctx); err != nil {
		return err
	}
	if b.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return err
	}
	return b.s3.Setenv()
}

func (b *bench) stop() (err error) {
	if b.s3 != nil {
		err = errors.Join(err, b.s3.Stop())
	}
	if b.cluster != nil {
		err = errors.Join(err, b.cluster.Stop())
	}
	if b.clamd != nil {
		err = errors.Join(err, b.clamd.Stop())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

func infectedPhoto() []byte {
	return stack.Photo(stack.PhotoConfig{Width: 320, Height: 240, Seed: 666})
}

// startClamd runs a clamd that the test may kill, in a directory and with lines of clamd.conf of its own.
func newScanner(t *testing.T, address string) *clamd.Scanner {
	t.Helper()
	s, err := clamd.New(address, clamd.Timeouts{})
	stack.Must(t, err)
	return s
}

func startClamd(t *testing.T, lines ...string) (clamd *stack.Clamd, dir string) {
	t.Helper()
	dir = t.TempDir()
	clamd, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Dir: dir, Database: stand(t).dir, Extra: lines})
	stack.Must(t, err)
	t.Cleanup(func() { _ = clamd.Stop() })
	return clamd, dir
}

// listen answers each connection with serve and returns the address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return "tcp://" + listener.Addr().String()
}
