package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.opentelemetry.io/otel/propagation"
)

const (
	userAgent = "Tramo-Webhooks"
	maxAnswer = 4 << 10     // bytes of an answer that are read, so that its connection can be used again
	readTime  = time.Second // that reading them may take
)

// Why an attempt failed. The tenant reads these, and docs/reference/webhooks.md explains them.
const (
	errorStatus   = "status"          // the answer was not 2xx
	errorRedirect = "redirect"        // the answer was 3xx, which is not followed
	errorGone     = "gone"            // the answer was 410
	errorTimeout  = "timeout"         // no answer in time
	errorDNS      = "dns"             // the host does not resolve
	errorAddress  = "address_refused" // the host's address is not public
	errorTLS      = "tls"             // no secure connection
	errorConnect  = "connect"         // no connection
	errorBroken   = "connection"      // the connection broke before an answer
)

// An envelope is a message with its address and secrets.
type envelope struct {
	id      string // of the announcement: the same for all attempts and endpoints
	url     string
	body    []byte
	secrets []string
}

// post sends the envelope once and returns the answer's status and header. The body does not matter.
func post(ctx context.Context, client *http.Client, e envelope, now time.Time) (int, http.Header, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(e.body))
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	signatures, err := sign(e, now)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set(standardwebhooks.HeaderWebhookID, e.id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signatures)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(r.Header))
	res, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close() // an unread rest closes the connection
	stop := time.AfterFunc(readTime, cancel)
	defer stop.Stop()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer) // the body does not matter
	return res.StatusCode, res.Header, nil
}

// sign returns one signature for each valid secret, so that a receiver may know either.
func sign(e envelope, now time.Time) (string, error) {
	signatures := make([]string, len(e.secrets))
	for i, secret := range e.secrets {
		w, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return "", fmt.Errorf("sign webhook: %w", err)
		}
		if signatures[i], err = w.Sign(e.id, now, e.body); err != nil {
			return "", fmt.Errorf("sign webhook: %w", err)
		}
	}
	return strings.Join(signatures, " "), nil
}

// judge returns why the attempt failed, as one of the errors above, or "".
func judge(status int, err error) string {
	switch {
	case err != nil:
		return judgeError(err)
	case status >= 200 && status <= 299:
		return ""
	case status == http.StatusGone:
		return errorGone
	case status >= 300 && status <= 399:
		return errorRedirect
	}
	return errorStatus
}

func judgeError(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var timeout net.Error
	switch {
	case refusedAddress(err):
		return errorAddress
	case errors.As(err, &dns):
		return errorDNS
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return errorTimeout
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		return errorTLS
	case errors.As(err, &op) && op.Op == "dial":
		return errorConnect
	}
	return errorBroken
}
