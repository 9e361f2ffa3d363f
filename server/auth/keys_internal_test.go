package auth

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// An issuer is an identity provider in the bubble of a test: a real HTTP server, over connections in memory.
type issuer struct {
	conns  chan net.Conn
	answer atomic.Value // string: the JWK set, or another body
	status atomic.Int32
	asked  atomic.Int32
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{conns: make(chan net.Conn)}
	i.publish(http.StatusOK, `{"keys":[]}`)
	s := &http.Server{Handler: i, ReadHeaderTimeout: time.Minute}
	go s.Serve(i) //nolint:errcheck // it says that it was closed
	t.Cleanup(func() {
		close(i.conns)
		stack.Must(t, s.Close())
	})
	return i
}

func (i *issuer) publish(status int, text string) {
	i.status.Store(int32(status))
	i.answer.Store(text)
}

// rotate publishes keys of these names alone.
func (i *issuer) rotate(kids ...string) {
	var keys []string
	for _, kid := range kids {
		x := base64.RawURLEncoding.EncodeToString(keyNamed(kid).Public().(ed25519.PublicKey))
		keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid, x))
	}
	i.publish(http.StatusOK, `{"keys":[`+strings.Join(keys, ",")+`]}`)
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.asked.Add(1)
	w.WriteHeader(int(i.status.Load()))
	_, _ = w.Write([]byte(i.answer.Load().(string)))
}

func (i *issuer) Accept() (net.Conn, error) {
	c, ok := <-i.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (i *issuer) Close() error   { return nil }
func (i *issuer) Addr() net.Addr { return &net.UnixAddr{} }

// client leads to the issuer whatever the address.
func (i *issuer) client() *http.Client {
	c := keysClient()
	c.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		i.conns <- there
		return here, nil
	}}
	return c
}

// keyNamed is the private key of that name.
func keyNamed(kid string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%-32s", kid)))
}

// provided runs a test with an issuer and a verifier that follows it. Time passes only when all wait.
func provided(t *testing.T, test func(t *testing.T, i *issuer, v *Verifier)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		i.rotate("first")
		v, err := NewVerifier(t.Context(), Config{Secrets: telemetry.Secret(strings.Repeat("s", MinSecret))}, slog.New(slog.DiscardHandler))
		stack.Must(t, err)
		v.parser = jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithExpirationRequired())
		v.keys = followKeys(t.Context(), "http://id.example.com/keys", i.client(), slog.New(slog.DiscardHandler))
		test(t, i, v)
	})
}

func tokenBy(t *testing.T, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"sub": "ana", "tenant": uuid.NewString(), "role": "empleado", "exp": time.Now().Add(240 * time.Hour).Unix(),
	})
	token.Header["kid"] = kid
	s, err := token.SignedString(keyNamed(kid))
	stack.Must(t, err)
	return s
}

// verify tells how long the answer took.
func verify(t *testing.T, v *Verifier, kid string) (time.Duration, error) {
	t.Helper()
	began := time.Now()
	_, err := v.Verify(t.Context(), tokenBy(t, kid))
	return time.Since(began), err
}

// A key that the issuer has just begun to use is fetched at once, and one that it has withdrawn is forgotten within
// the interval.
func TestKeysRotate(t *testing.T) {
	provided(t, func(t *testing.T, i *issuer, v *Verifier) {
		_, err := verify(t, v, "first")
		stack.Must(t, err)
		<-time.After(time.Minute)
		i.rotate("first", "second")
		took, err := verify(t, v, "second")
		if err != nil || took > 0 {
			t.Errorf("the new key: %v after %s", err, took)
		}
		_, err = verify(t, v, "first")
		stack.Must(t, err)
		i.rotate("second")
		<-time.After(keysInterval + time.Second)
		if _, err = verify(t, v, "first"); err == nil || errors.Is(err, problem.ErrKeysUnavailable) {
			t.Errorf("the key that was withdrawn: %v", err)
		}
		_, err = verify(t, v, "second")
		stack.Must(t, err)
	})
}

// However many tokens name keys that there are not, the issuer is asked once in a while; and a key that comes to be
// there meanwhile is found all the same, within the rest that the issuer has.
func TestUnknownKeysDoNotHammer(t *testing.T) {
	provided(t, func(t *testing.T, i *issuer, v *Verifier) {
		const minutes = 10
		ctx, stop := context.WithTimeout(t.Context(), minutes*time.Minute)
		defer stop()
		var flood sync.WaitGroup
		for n := range 100 {
			flood.Go(func() {
				for round := 0; ctx.Err() == nil && round < 10*minutes; round++ { // an end, in case the verifier never waits
					if _, err := v.Verify(ctx, tokenBy(t, fmt.Sprintf("no-%d-%d", n, round))); err == nil {
						t.Error("a token by nobody's key is accepted")
					}
				}
			})
		}
		for n := range 20 {
			kid := fmt.Sprint("rotated-", n)
			i.rotate("first", kid)
			if took, err := verify(t, v, kid); err != nil || took > keysMinInterval {
				t.Errorf("%s: %v after %s", kid, err, took)
			}
			if took, err := verify(t, v, "first"); err != nil || took > 0 {
				t.Errorf("the known key: %v after %s", err, took)
			}
		}
		flood.Wait()
		if most := int32(minutes*time.Minute/keysMinInterval) + 1; i.asked.Load() > most {
			t.Errorf("the issuer was asked %d times in %d minutes, more than %d", i.asked.Load(), minutes, most)
		}
	})
}

// While the issuer is away, or talks nonsense, known keys verify and nobody waits for them. What cannot be known is
// no refusal.
func TestIssuerGoesAway(t *testing.T) {
	provided(t, func(t *testing.T, i *issuer, v *Verifier) {
		_, err := verify(t, v, "first")
		stack.Must(t, err)
		for _, away := range []struct {
			status int
			text   string
		}{
			{http.StatusInternalServerError, ""}, {http.StatusFound, ""}, {http.StatusOK, "<html>"}, {http.StatusOK, `{}`},
			{http.StatusOK, `{"keys":[]}`}, {http.StatusOK, `{"keys":[{"kty":"oct","kid":"first","k":"AAAA"}]}`},
			{http.StatusOK, `{"keys":[],"x":"` + strings.Repeat("x", keysMaxSize) + `"}`},
		} {
			i.publish(away.status, away.text)
			<-time.After(3 * keysInterval)
			if took, err := verify(t, v, "first"); err != nil || took > 0 {
				t.Errorf("%+.40v: the known key: %v after %s", away, err, took)
			}
			if took, err := verify(t, v, "other"); !errors.Is(err, problem.ErrKeysUnavailable) || took > keysMinInterval+keysTimeout {
				t.Errorf("%+.40v: an unknown key: %v after %s", away, err, took)
			}
			stack.Must(t, v.Ready(t.Context()))
		}
		i.rotate("first", "other")
		if took, err := verify(t, v, "other"); err != nil || took > keysMinInterval {
			t.Errorf("the issuer is back: %v after %s", err, took)
		}
	})
}

// An issuer that is away when the server starts keeps it from being ready and from nothing else; it is asked until it
// answers.
func TestIssuerAwayAtFirst(t *testing.T) {
	provided(t, func(t *testing.T, i *issuer, v *Verifier) {
		i.publish(http.StatusServiceUnavailable, "")
		// The verifier may have keys by now. This one starts while the issuer does not answer.
		v.keys = followKeys(t.Context(), "http://id.example.com/keys", i.client(), slog.New(slog.DiscardHandler))
		if _, err := verify(t, v, "first"); !errors.Is(err, problem.ErrKeysUnavailable) {
			t.Errorf("without any keys: %v", err)
		}
		if v.Ready(t.Context()) == nil {
			t.Error("ready without any keys")
		}
		i.rotate("first")
		<-time.After(keysRetry + time.Second)
		stack.Must(t, v.Ready(t.Context()))
		if took, err := verify(t, v, "first"); err != nil || took > 0 {
			t.Errorf("%v after %s", err, took)
		}
	})
}
