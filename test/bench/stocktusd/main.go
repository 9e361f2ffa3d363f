// Stocktusd is tusd with its own S3 store, put together as the tusd command does it and with that command's defaults,
// so that Tramo is measured against what others would run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
	"github.com/tus/tusd/v2/pkg/s3store"
	"golang.org/x/exp/slog"
)

// The defaults of cmd/tusd/cli/flags.go in tusd 2.10.0.
const (
	partSize        = 50 << 20 // bytes
	minPartSize     = 5 << 20  // bytes
	bufferedParts   = 20
	concurrentParts = 10
	networkTimeout  = 60 * time.Second
	lockTimeout     = 20 * time.Second
	completionTime  = 10 * time.Second
	shutdownTime    = 10 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	endpoint := flag.String("endpoint", "", "URL of the S3 server")
	bucket := flag.String("bucket", "", "the bucket")
	part := flag.Int64("part-size", partSize, "bytes in a part")
	unhashed := flag.Bool("disable-content-hashes", false, "sign no content")
	flag.Parse()

	// As the tusd command prints it.
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug})))
	conf, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	store := s3store.New(*bucket, s3.NewFromConfig(conf, func(o *s3.Options) {
		o.BaseEndpoint = endpoint
		o.UsePathStyle = true
	}))
	store.PreferredPartSize = *part
	store.MinPartSize = minPartSize
	store.MaxBufferedParts = bufferedParts
	store.DisableContentHashes = *unhashed
	store.SetConcurrentPartUploads(concurrentParts)
	return serve(ctx, store)
}

// serve serves until ctx is done, and says first where.
func serve(ctx context.Context, store s3store.S3Store) error {
	composer := handler.NewStoreComposer()
	store.UseIn(composer)
	memorylocker.New().UseIn(composer)
	tus, err := handler.NewHandler(handler.Config{
		BasePath:                         "/files/",
		StoreComposer:                    composer,
		AcquireLockTimeout:               lockTimeout,
		GracefulRequestCompletionTimeout: completionTime,
		NetworkTimeout:                   networkTimeout,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/files/", http.StripPrefix("/files/", tus))
	mux.Handle("/files", http.StripPrefix("/files", tus))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: networkTimeout,
		IdleTimeout:       networkTimeout,
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	s.RegisterOnShutdown(func() { cancel(handler.ErrServerShutdown) })
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	fmt.Printf("stock tusd on %s\n", l.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	last, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer done()
	if err := s.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
