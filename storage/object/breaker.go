package object

import (
	"context"
	"errors"
	"fmt"
	"time"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/aws/smithy-go/middleware"
	"github.com/sony/gobreaker/v2"
)

// ErrUnavailable says that S3 does not do its work at present. What has been acknowledged is safe; a later try
// may succeed.
var ErrUnavailable = errors.New("S3 is not available")

// When a bucket is given up on, after all that the SDK tries by itself, and for how long.
const (
	attempts       = 4 // of one request, by the SDK
	maxBackoff     = time.Second
	failuresToOpen = 3 // in a row
	openTime       = 3 * time.Second
)

// newBreaker makes a circuit breaker: while it is open, requests fail at once instead of waiting for an S3 that
// does not answer. After openTime one request at a time tries again.
func newBreaker() *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      openTime,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresToOpen },
		IsSuccessful: func(err error) bool { return !isOutage(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) }, // it says nothing
	})
}

// isOutage tells trouble of S3, or of the way to it, from an answer: that of a 404, say.
func isOutage(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false // cancelled by us
	}
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) {
		return true
	}
	status := answer.HTTPStatusCode()
	return status >= 500 || status == 429 // too many requests
}

// through leads every operation of a client through a breaker, and marks its outages as [ErrUnavailable].
func through(b *gobreaker.CircuitBreaker[struct{}]) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("CircuitBreaker", func(
			ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
		) (out middleware.InitializeOutput, metadata middleware.Metadata, err error) {
			_, err = b.Execute(func() (struct{}, error) {
				var err error
				out, metadata, err = next.HandleInitialize(ctx, in)
				return struct{}{}, err
			})
			if isOutage(err) {
				err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			return out, metadata, err
		}), middleware.Before)
	}
}

// Unavailable reports whether S3 has been given up on for the moment.
func (b *Bucket) Unavailable() bool { return b.breaker.State() == gobreaker.StateOpen }
