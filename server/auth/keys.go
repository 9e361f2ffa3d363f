package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tramo/tramo/server/problem"
)

// How keys are fetched from an identity provider.
const (
	keysInterval    = 15 * time.Minute // between two fetches
	keysRetry       = 10 * time.Second // after a fetch that failed
	keysMinInterval = 5 * time.Second  // after any fetch, also when tokens name unknown keys
	keysTimeout     = 5 * time.Second  // of one fetch
	keysMaxSize     = 1 << 20          // bytes of the answer
	minRSA          = 2048             // bits of a key (RFC 7518, section 3.3)
)

// A keyName identifies a key in a token. It includes the algorithm: a key verifies only one (RFC 8725, section 3.1).
type keyName struct{ id, algorithm string }

// A keyRing has the public keys that an identity provider publishes as a JWK Set (RFC 7517). It fetches them at intervals,
// and when a token names a key that it does not have. All such tokens wait for the same fetch, and there is a least
// interval between two. While the provider is unavailable, known keys stay valid.
type keyRing struct {
	url    string
	client *http.Client
	log    *slog.Logger
	wanted chan struct{} // not empty while a token waits for a fetch

	mu   sync.Mutex
	keys map[keyName]crypto.PublicKey // nil before the first fetch succeeded
	err  error                        // of the last fetch
	done chan struct{}                // closed when the next fetch has ended
}

// followKeys makes a ring that is kept up to date until ctx is done. It does not wait for the first fetch.
func followKeys(ctx context.Context, url string, client *http.Client, log *slog.Logger) *keyRing {
	r := &keyRing{
		url: url, client: client, log: log, wanted: make(chan struct{}, 1), done: make(chan struct{}), err: problem.ErrKeysUnavailable,
	}
	go r.run(ctx)
	return r
}

// keysClient follows no redirect: only the URL that the operator configured is trusted.
func keysClient() *http.Client {
	return &http.Client{
		Timeout:       keysTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (r *keyRing) run(ctx context.Context) {
	for ctx.Err() == nil {
		keys, err := r.fetch(ctx)
		wait := keysInterval
		if err != nil {
			wait = keysRetry
			r.log.WarnContext(ctx, "JWK set not fetched", slog.Any("err", err))
		}
		r.settle(keys, err)
		pause(ctx, keysMinInterval, nil)
		pause(ctx, wait-keysMinInterval, r.wanted)
	}
}

// pause waits for d, or until a fetch is wanted.
func pause(ctx context.Context, d time.Duration, wanted <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wanted:
	case <-ctx.Done():
	}
}

// settle keeps the result of a fetch and wakes the tokens that wait for it.
func (r *keyRing) settle(keys map[keyName]crypto.PublicKey, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.keys = keys
	}
	close(r.done)
	r.done = make(chan struct{})
	select {
	case <-r.wanted: // the tokens that asked for it are woken
	default:
	}
}

// find returns the key, if need be after a fetch. The error is [jwt.ErrTokenUnverifiable] if the provider does not publish
// the key, and [problem.ErrKeysUnavailable] if the provider did not answer.
func (r *keyRing) find(ctx context.Context, name keyName) (crypto.PublicKey, error) {
	key, done := r.lookUp(name)
	if key != nil {
		return key, nil
	}
	late := time.NewTimer(keysMinInterval + keysTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		return nil, problem.ErrKeysUnavailable
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch key := r.keys[name]; {
	case key != nil:
		return key, nil
	case r.err != nil:
		return nil, problem.ErrKeysUnavailable
	}
	return nil, fmt.Errorf("%w: its key is not published", jwt.ErrTokenUnverifiable)
}

// lookUp returns the key, or requests a fetch and returns a channel that is closed when the fetch has ended.
func (r *keyRing) lookUp(name keyName) (crypto.PublicKey, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key := r.keys[name]; key != nil {
		return key, nil
	}
	select {
	case r.wanted <- struct{}{}:
	default:
	}
	return nil, r.done
}

// fetched returns an error until a fetch has succeeded.
func (r *keyRing) fetched() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		return r.err
	}
	return nil
}

func (r *keyRing) fetch(ctx context.Context) (map[keyName]crypto.PublicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch the JWK set: %w", err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch the JWK set: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the JWK set: the URL answers %s", res.Status)
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.NewDecoder(io.LimitReader(res.Body, keysMaxSize)).Decode(&set); err != nil {
		return nil, fmt.Errorf("read the JWK set: %w", err)
	}
	keys := make(map[keyName]crypto.PublicKey, len(set.Keys))
	for _, raw := range set.Keys {
		if name, key, ok := parseKey(raw); ok && keys[name] == nil {
			keys[name] = key
		}
	}
	if len(keys) == 0 { // a failure behind a 200: keep the known keys
		return nil, errors.New("the JWK set has no key for RS256, ES256 or EdDSA")
	}
	return keys, nil
}

// parseKey reads one key of a JWK Set. ok is false for a key that is not a named public key for signatures with one of our
// algorithms, so that a new kind of key does not hide the others (RFC 7517, section 5). It is also false for secrets
// ("oct") and private keys: anybody can sign with a key that is published.
func parseKey(raw json.RawMessage) (name keyName, key crypto.PublicKey, ok bool) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return keyName{}, nil, false
	}
	m.X5U, m.X5C, m.X5T, m.X5TS256 = "", nil, "", "" // certificates, which we do not use
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil || m.KID == "" || m.D != "" || m.K != "" {
		return keyName{}, nil, false
	}
	if m.USE != "" && m.USE != jwkset.UseSig || len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return keyName{}, nil, false
	}
	algorithm := algorithmOf(jwk.Key())
	if algorithm == "" || m.ALG != "" && m.ALG.String() != algorithm {
		return keyName{}, nil, false
	}
	return keyName{m.KID, algorithm}, jwk.Key(), true
}

// algorithmOf returns the only algorithm that a public key verifies, or "".
func algorithmOf(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSA {
			return jwt.SigningMethodRS256.Name
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return jwt.SigningMethodES256.Name
		}
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA.Alg()
	}
	return ""
}
