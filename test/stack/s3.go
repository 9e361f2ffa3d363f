package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"golang.org/x/sys/unix"
)

const (
	s3StartTimeout = 20 * time.Second
	s3StopTimeout  = time.Minute

	s3Access = "tramo"
	s3Region = "us-east-1"
	s3Bucket = "tramo"
)

// S3Config says where an S3 server listens and keeps its objects. Empty fields have defaults.
type S3Config struct {
	// Dir holds the buckets: the object key of bucket b is the file Dir/b/key. Without Dir it is a temporary
	// directory that Stop removes.
	Dir string
	// Addr is host:port. Port 0, the default, means any free one.
	Addr string
	// Secret is the key of the only account that the server accepts; by default a random one.
	Secret string
}

// S3 is versitygw on its POSIX backend, in this process.
type S3 struct {
	cfg S3Config
	ownDirs
	cancel context.CancelFunc
	done   chan struct{}
	err    error // how it ended; read it after done
}

// StartS3 starts the server and returns once the bucket is there.
//
// versitygw allows one server a process, and moves the process's working directory to Dir: make
// relative paths absolute before.
func StartS3(ctx context.Context, cfg S3Config) (_ *S3, err error) {
	ctx, cancel := context.WithTimeout(ctx, s3StartTimeout)
	defer cancel()
	s := &S3{cfg: cfg}
	if err := s.setDefaults(); err != nil {
		return nil, err
	}
	if err := s.Restart(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Endpoint returns the server's URL. Buckets are addressed by path.
func (s *S3) Endpoint() string { return "http://" + s.cfg.Addr }

// Bucket returns the name of the bucket that StartS3 made sure of.
func (s *S3) Bucket() string { return s3Bucket }

// Dir returns the directory whose plain files the objects are.
func (s *S3) Dir() string { return s.cfg.Dir }

// Env returns the credentials and the region as the AWS SDKs read them from the environment.
func (s *S3) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s3Access,
		"AWS_SECRET_ACCESS_KEY=" + s.cfg.Secret,
		"AWS_REGION=" + s3Region,
	}
}

// Setenv puts Env into this process's environment, where the code under test looks for it.
func (s *S3) Setenv() error {
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		if err := os.Setenv(k, v); err != nil {
			return err
		}
	}
	return nil
}

// Client returns a client of this server, or of endpoint, if given, such as a Proxy before it.
func (s *S3) Client(endpoint string) *s3.Client {
	if endpoint == "" {
		endpoint = s.Endpoint()
	}
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint),
		Region:       s3Region,
		Credentials:  credentials.NewStaticCredentialsProvider(s3Access, s.cfg.Secret, ""),
		UsePathStyle: true,
	})
}

// Exited is closed when the server has ended, for whatever reason.
func (s *S3) Exited() <-chan struct{} { return s.done }

// Stop ends the server. It may be called twice.
func (s *S3) Stop() error { return errors.Join(s.halt(), s.remove()) }

// Restart stops the server, if it still runs, and starts it at the same address.
func (s *S3) Restart(ctx context.Context) error {
	if err := s.halt(); err != nil {
		return err
	}
	attributes, err := attributeStore(s.cfg.Dir)
	if err != nil {
		return err
	}
	backend, err := posix.New(s.cfg.Dir, attributes, posix.PosixOpts{CopyObjectThreshold: 5 << 30}) // as S3 has it; its zero lets nothing be copied
	if err != nil {
		return fmt.Errorf("open %s for S3: %w", s.cfg.Dir, err)
	}
	// The server outlives the context of the call that starts it.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel, s.done = cancel, make(chan struct{})
	go func() {
		s.err = embedgw.RunVersityGW(serving, backend, &embedgw.Config{
			RootUserAccess:    s3Access,
			RootUserSecret:    s.cfg.Secret,
			Region:            s3Region,
			IAMService:        auth.NewIAMServiceSingle(auth.Account{Access: s3Access, Secret: s.cfg.Secret, Role: auth.RoleAdmin}),
			Ports:             []string{s.cfg.Addr},
			MaxConnections:    4096,
			MaxRequests:       4096,
			MultipartMaxParts: 10000,
			KeepAlive:         true,
			Quiet:             true,
		})
		close(s.done)
	}()
	return s.awaitBucket(ctx)
}

func (s *S3) setDefaults() (err error) {
	c := &s.cfg
	c.Addr, c.Secret = cmp.Or(c.Addr, "127.0.0.1:0"), cmp.Or(c.Secret, rand.Text())
	if c.Dir == "" {
		parent, err := s.tempDir("", "s3")
		if err != nil {
			return err
		}
		c.Dir = filepath.Join(parent, "buckets") // beside which there may be their attributes
	}
	if c.Dir, err = s.private(c.Dir, "S3"); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("read the address of S3: %w", err)
	}
	if port == "0" {
		// versitygw does not report its port, so it must be given one.
		c.Addr, err = freeAddr(host)
	}
	return err
}

// awaitBucket creates the bucket as soon as the server answers.
func (s *S3) awaitBucket(ctx context.Context) error {
	client := s.Client("")
	return await(ctx, "S3 on "+s.cfg.Addr, s.done, &s.err, func(ctx context.Context) error {
		_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(s3Bucket)}, func(o *s3.Options) {
			o.RetryMaxAttempts = 1
			o.HTTPClient = &http.Client{Timeout: 5 * time.Second}
		})
		var owned *types.BucketAlreadyOwnedByYou
		var exists *types.BucketAlreadyExists
		if errors.As(err, &owned) || errors.As(err, &exists) {
			return nil
		}
		return err
	})
}

func (s *S3) halt() error {
	if s.cancel == nil {
		return nil
	}
	s.cancel()
	select {
	case <-s.done:
	case <-time.After(s3StopTimeout):
		return fmt.Errorf("stop S3 on %s: still running after %s", s.cfg.Addr, s3StopTimeout)
	}
	if s.err != nil && !errors.Is(s.err, context.Canceled) {
		return fmt.Errorf("S3 on %s: %w", s.cfg.Addr, s.err)
	}
	return nil
}

// attributeStore keeps an object's metadata in extended attributes, or beside dir where the file system has none
// (tmpfs had none before Linux 6.6).
func attributeStore(dir string) (meta.MetadataStorer, error) {
	probe, err := os.CreateTemp(dir, ".xattr-")
	if err != nil {
		return nil, fmt.Errorf("try extended attributes: %w", err)
	}
	defer os.Remove(probe.Name())
	defer probe.Close()
	if unix.Fsetxattr(int(probe.Fd()), "user.tramo", []byte("1"), 0) == nil {
		return meta.XattrMeta{}, nil
	}
	sidecar := strings.TrimSuffix(dir, string(filepath.Separator)) + "-attributes"
	if err := os.MkdirAll(sidecar, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for objects' attributes: %w", err)
	}
	return meta.NewSideCar(sidecar)
}
