package chaos

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// A seal is the key that every replica signs receipts with.
type seal struct {
	public ed25519.PublicKey
	file   string // the private key, as PEM
}

func newSeal(dir string) (seal, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return seal{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return seal{}, err
	}
	s := seal{public: public, file: filepath.Join(dir, "receipt-key.pem")}
	return s, os.WriteFile(s.file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// open returns the claims of a receipt whose signature holds.
func (s seal) open(jws string) (claims receipt, err error) {
	signed, signature, _ := cutLast(jws, ".")
	_, payload, _ := strings.Cut(signed, ".")
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || !ed25519.Verify(s.public, []byte(signed), sig) {
		return claims, fmt.Errorf("the signature of %q does not hold", jws)
	}
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return claims, err
	}
	return claims, json.Unmarshal(body, &claims)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

type receipt struct {
	Subject string `json:"sub"`
	Size    int    `json:"size"`
	SHA256  string `json:"sha256"`
}

// checkReceipts: each upload that is done has a receipt, whose signature holds, for the bytes that were sent. Servers
// must run.
func checkReceipts(ctx context.Context, s *site, uploads []*upload) {
	for _, u := range uploads {
		if !u.done {
			continue
		}
		for id := range u.ids {
			jws, err := s.receipt(ctx, id)
			if err != nil {
				s.journal.violate(u.name, "done, but it has no receipt: %v", err)
				continue
			}
			got, err := s.seal.open(jws)
			if want := (receipt{id, len(u.data), u.sum}); err != nil || got != want {
				s.journal.violate(u.name, "its receipt says %+v, not %+v: %v", got, want, err)
			}
		}
	}
}

func (s *site) receipt(ctx context.Context, id string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.urls()[0]+"/api/uploads/"+id+"/receipt", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", res.StatusCode, body)
	}
	return string(body), err
}
