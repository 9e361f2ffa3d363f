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

// ErrUnavailable says that S3 fails at present. Acknowledged bytes are safe; a later attempt may succeed.
var ErrUnavailable = errors.New("S3 is not available")

// When the circuit breaker of a bucket opens, after all retries of the SDK, and for how long.
const (
	attempts       = 4 // of one request, by the SDK
	maxBackoff     = time.Second
	failuresToOpen = 3 // in a row
	openTime       = 3 * time.Second
)

// newBreaker makes a circuit breaker. While it is open, requests fail at once instead of waiting for S3. After openTime one
// request at a time is tried.
func newBreaker() *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      openTime,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresToOpen },
		IsSuccessful: func(err error) bool { return !isOutage(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) }, // says nothing about S3
	})
}

// isOutage reports whether err is a failure of S3 or of the network, and not an answer such as 404.
func isOutage(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false // cancelled by us
	}
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) {
		return true
	}
	if saysUnsupported(err) {
		return false
	}
	status := answer.HTTPStatusCode()
	return status >= 500 || status == 429 // too many requests
}

// through sends every operation of a client through a breaker, and wraps outages in [ErrUnavailable] and what the store
// cannot do in [ErrUnsupported].
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
			switch {
			case isOutage(err):
				err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			case saysUnsupported(err):
				err = fmt.Errorf("%w: %w", ErrUnsupported, err)
			}
			return out, metadata, err
		}), middleware.Before)
	}
}

// ready returns [ErrUnavailable] if S3 is not to be asked for something that costs more than a request. While nobody knows
// whether S3 is back, a request that costs nothing finds out.
func (b *Bucket) ready(ctx context.Context) error {
	switch b.breaker.State() {
	case gobreaker.StateOpen:
		return ErrUnavailable
	case gobreaker.StateHalfOpen:
		if err := b.Ping(ctx); errors.Is(err, ErrUnavailable) {
			return err
		}
	}
	return nil
}

// Unavailable reports whether the circuit breaker is open.
func (b *Bucket) Unavailable() bool { return b.breaker.State() == gobreaker.StateOpen }
