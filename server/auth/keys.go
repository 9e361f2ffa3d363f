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

// How an identity provider is asked for its keys.
const (
	keysInterval = 15 * time.Minute // while all is well
	keysRetry    = 10 * time.Second // after a fetch that failed
	keysRest     = 5 * time.Second  // after any fetch, whatever tokens name
	keysTimeout  = 5 * time.Second  // for one fetch
	keysMaxSize  = 1 << 20          // of the answer, in bytes
	minRSA       = 2048             // bits of a key (RFC 7518, section 3.3)
)

// A keyName is what a token says of its key. The algorithm belongs to it: a key verifies one and no other (RFC 8725,
// section 3.1).
type keyName struct{ id, algorithm string }

// A keyRing has the public keys that an identity provider publishes as a JWK Set (RFC 7517). It asks again now and
// then, and when a token names a key that it does not have. However many such tokens come, they wait for one fetch
// together, and the provider rests between two. While it is away the keys that are known stay good.
type keyRing struct {
	url    string
	client *http.Client
	log    *slog.Logger
	wanted chan struct{} // has a word in it while somebody waits for a fetch

	mu   sync.Mutex
	keys map[keyName]crypto.PublicKey // nil until they were had once
	err  error                        // how the last fetch ended
	over chan struct{}                // closed when the next fetch has ended
}

// followKeys makes a ring that is kept up to date until ctx is done. It waits for nothing.
func followKeys(ctx context.Context, url string, client *http.Client, log *slog.Logger) *keyRing {
	r := &keyRing{
		url: url, client: client, log: log, wanted: make(chan struct{}, 1), over: make(chan struct{}), err: problem.ErrKeysUnavailable,
	}
	go r.run(ctx)
	return r
}

// keysClient follows no redirect: the keys are where the operator said, or nowhere.
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
			r.log.WarnContext(ctx, "keys that verify tokens not fetched", slog.Any("err", err))
		}
		r.settle(keys, err)
		pause(ctx, keysRest, nil)
		pause(ctx, wait-keysRest, r.wanted)
	}
}

// pause waits for so long, or until there is a word in wanted.
func pause(ctx context.Context, d time.Duration, wanted <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wanted:
	case <-ctx.Done():
	}
}

// settle keeps what a fetch brought and tells those who wait for it.
func (r *keyRing) settle(keys map[keyName]crypto.PublicKey, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.keys = keys
	}
	close(r.over)
	r.over = make(chan struct{})
	select {
	case <-r.wanted: // whoever left the word is told by now
	default:
	}
}

// find returns the key, for which it may wait for a fetch. Without it the error says whether there is none
// ([jwt.ErrTokenUnverifiable]) or nobody can tell ([problem.ErrKeysUnavailable]).
func (r *keyRing) find(ctx context.Context, name keyName) (crypto.PublicKey, error) {
	key, over := r.look(name)
	if key != nil {
		return key, nil
	}
	late := time.NewTimer(keysRest + keysTimeout)
	defer late.Stop()
	select {
	case <-over:
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
	return nil, fmt.Errorf("%w: nobody publishes its key", jwt.ErrTokenUnverifiable)
}

// look returns the key, or asks for a fetch and returns what is closed once that is over.
func (r *keyRing) look(name keyName) (crypto.PublicKey, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key := r.keys[name]; key != nil {
		return key, nil
	}
	select {
	case r.wanted <- struct{}{}:
	default:
	}
	return nil, r.over
}

// had reports whether the keys were had at least once.
func (r *keyRing) had() error {
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
		return nil, fmt.Errorf("ask for the JWKS: %w", err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for the JWKS: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the JWKS URL answers %s", res.Status)
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.NewDecoder(io.LimitReader(res.Body, keysMaxSize)).Decode(&set); err != nil {
		return nil, fmt.Errorf("read the JWKS: %w", err)
	}
	keys := make(map[keyName]crypto.PublicKey, len(set.Keys))
	for _, raw := range set.Keys {
		if name, key, ok := parseKey(raw); ok && keys[name] == nil {
			keys[name] = key
		}
	}
	if len(keys) == 0 { // some breakdown behind a 200: what is known stays good
		return nil, errors.New("the JWKS has no key for RS256, ES256 or EdDSA")
	}
	return keys, nil
}

// parseKey reads one key of a JWK Set. What is not a public key for one of our algorithms, with a name and meant for
// signatures, is passed over, so that a new kind of key does not hide the others (RFC 7517, section 5). Passed over
// are secrets ("oct") and private keys too: somebody else can sign with what is published.
func parseKey(raw json.RawMessage) (keyName, crypto.PublicKey, bool) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return keyName{}, nil, false
	}
	m.X5U, m.X5C, m.X5T, m.X5TS256 = "", nil, "", "" // certificates are no concern of ours, nor where they can be had
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

// algorithmOf returns the one algorithm that a public key verifies, or "".
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
