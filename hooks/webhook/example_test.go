package webhook_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// A receiver verifies the bytes that came, and answers before it works.
func Example() {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		panic(err)
	}
	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil || hook.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Println("enqueue", r.Header.Get("webhook-id"), string(body))
	}

	// What Tramo does.
	const body = `{"type":"upload.completed","timestamp":"2026-11-22T04:00:00Z","data":{"id":"019a"}}`
	now := time.Now()
	signature, err := hook.Sign("6c1f", now, []byte(body))
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/tramo", strings.NewReader(body))
	r.Header.Set("Webhook-Id", "6c1f")
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("Webhook-Signature", signature)
	w := httptest.NewRecorder()
	receive(w, r)
	fmt.Println(w.Code)
	// Output:
	// enqueue 6c1f {"type":"upload.completed","timestamp":"2026-11-22T04:00:00Z","data":{"id":"019a"}}
	// 200
}
