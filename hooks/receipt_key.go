package hooks

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	makeKey    = "openssl genpkey -algorithm ed25519"
	makePublic = "openssl pkey -pubout"
)

// ParseReceiptKey reads an Ed25519 private key from PEM (PKCS #8; RFC 8410, section 7).
func ParseReceiptKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("there is no PEM in it; " + makeKey + " makes a key")
	}
	if block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("it has a %s, and a PRIVATE KEY (PKCS #8, not encrypted) is needed; %s makes one", block.Type, makeKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its PRIVATE KEY is not PKCS #8; " + makeKey + " makes one that is")
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("its key is not an Ed25519 key; " + makeKey + " makes one")
	}
	return private, nil
}

// ParseReceiptPublicKeys reads concatenated Ed25519 public keys from PEM.
func ParseReceiptPublicKeys(text []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil && len(keys) == 0:
			return nil, errors.New("there is no PEM in it; " + makePublic + " prints a key's public half")
		case block == nil:
			return keys, nil
		case block.Type != "PUBLIC KEY":
			return nil, fmt.Errorf("it has a %s, and only PUBLIC KEYs are wanted; %s prints a key's public half", block.Type, makePublic)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("its PUBLIC KEY number %d is not an Ed25519 key", len(keys)+1)
		}
		keys, text = append(keys, public), rest
	}
}

// thumbprint returns the thumbprint of a key (RFC 7638, section 3, with the members of RFC 8037, section 2).
func thumbprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
