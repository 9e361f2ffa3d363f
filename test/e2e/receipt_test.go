package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

const issuer = "https://uploads.example.com"

// newReceiptKey makes a key as an operator would, and the file of its public half.
func newReceiptKey(t *testing.T) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	stack.Must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	stack.Must(t, err)
	pkix, err := x509.MarshalPKIXPublicKey(pub)
	stack.Must(t, err)
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key.pem"), filepath.Join(dir, "public.pem")
	stack.Must(t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	stack.Must(t, os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}), 0o600))
	return private, public
}

// signing starts a replica that signs receipts.
func signing(t *testing.T, env ...string) replica {
	t.Helper()
	r, err := tramo.serve(stack.Context(t), append(env, "TRAMO_PUBLIC_URL="+issuer)...)
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, r.Stop()) })
	return r
}

// A receipt is about one upload.
type receipt struct {
	Iss, Sub, Tenant, Filename, SHA256 string
	ClientID                           string `json:"client_id"`
	UploadedAt                         string `json:"uploaded_at"`
	Size                               int
	Iat                                int64
}

// verify checks a receipt with the keys that a replica publishes, by node's WebCrypto, as docs/reference/receipts.md does.
func (r replica) verify(t *testing.T, jws string) (claims receipt, err error) {
	t.Helper()
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := stack.Run(ctx, stack.ProcessConfig{
		Path: "/usr/bin/env",
		Args: []string{"node", filepath.Join(root, "test/e2e/receipt.mjs"), filepath.Join(root, "docs/reference/receipts.md"),
			r.URL + "/.well-known/jwks.json", issuer, jws},
		Env: stack.CleanEnv(),
	})
	if err != nil {
		return receipt{}, err
	}
	return claims, json.Unmarshal([]byte(out), &claims)
}

// A phone sends a photo, asks too early, then gets the receipt, the same from each replica; a stranger verifies
// it with the published keys alone, and not once a byte of it is changed.
func TestReceipt(t *testing.T) {
	t.Parallel()
	private, _ := newReceiptKey(t)
	first, second := signing(t, "TRAMO_RECEIPT_KEY_FILE="+private), signing(t, "TRAMO_RECEIPT_KEY_FILE="+private)
	tenant, u := newTenant(t, "50GiB")
	photo := stack.Photo(stack.PhotoConfig{Seed: 11})
	id := idOf(u.create(first, len(photo), "filename", "obra norte.jpg", "filetype", "image/jpeg", "client_id", "IMG_7"))
	url := first.URL + "/api/uploads/" + id
	u.patch(url, 0, photo[:1000])
	u.do("GET", url+"/receipt", nil).want(t, http.StatusConflict, "receipt-not-ready")
	u.patch(url, 1000, photo[1000:]).want(t, http.StatusNoContent, "")

	a := u.do("GET", url+"/receipt", nil) // at once: its promise does not wait for the worker
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/jwt" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	up, _ := u.await(url)
	reader := tramo.userOf(t, tenant, "iris", "inversionista")
	if again := reader.do("GET", second.URL+"/api/uploads/"+id+"/receipt", nil); !bytes.Equal(again.body, a.body) {
		t.Errorf("another receipt, later and elsewhere: %s, before %s", again.body, a.body)
	}
	r, err := second.verify(t, string(a.body))
	stack.Must(t, err)
	if r.Iss != issuer || r.Sub != id || r.ClientID != "IMG_7" || r.Filename != "obra norte.jpg" || r.Size != len(photo) ||
		r.SHA256 != sumOf(photo) || r.SHA256 != up.SHA256 || r.Tenant == "" || r.Iat == 0 || r.UploadedAt == "" {
		t.Errorf("it claims %+v", r)
	}

	parts := strings.Split(string(a.body), ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	stack.Must(t, err)
	parts[1] = base64.RawURLEncoding.EncodeToString(bytes.Replace(claims, []byte("IMG_7"), []byte("IMG_8"), 1))
	if got, err := second.verify(t, strings.Join(parts, ".")); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("a forged receipt: %+v, %v", got, err)
	}
	const name = "X-Request-Id" // which problems contain
	stranger := newUser(t).do("GET", url+"/receipt", nil, name, "same")
	unknown := u.do("GET", first.URL+"/api/uploads/01890a5d-ac96-774b-bcce-b302099a8057/receipt", nil, name, "same")
	if stranger.status != http.StatusNotFound || !bytes.Equal(stranger.body, unknown.body) {
		t.Errorf("a stranger: %d %s, an unknown id: %s", stranger.status, stranger.body, unknown.body)
	}
}

// After a rotation, receipts of the old key are still good, and new ones of the same upload are of the new key.
func TestReceiptKeyRotation(t *testing.T) {
	t.Parallel()
	oldKey, oldPublic := newReceiptKey(t)
	newKey, _ := newReceiptKey(t)
	before := signing(t, "TRAMO_RECEIPT_KEY_FILE="+oldKey)
	after := signing(t, "TRAMO_RECEIPT_KEY_FILE="+newKey, "TRAMO_RECEIPT_RETIRED_KEYS_FILE="+oldPublic)
	u := newUser(t)
	id := idOf(u.send(before, stack.PNG(10, 10), "filetype", "image/png"))
	kept := u.do("GET", before.URL+"/api/uploads/"+id+"/receipt", nil).body
	fresh := u.do("GET", after.URL+"/api/uploads/"+id+"/receipt", nil).body
	for name, r := range map[string][]byte{"kept": kept, "fresh": fresh} {
		if claims, err := after.verify(t, string(r)); err != nil || claims.Sub != id {
			t.Errorf("the %s one: %+v, %v", name, claims, err)
		}
	}
	if _, err := before.verify(t, string(fresh)); err == nil || bytes.Equal(kept, fresh) {
		t.Error("the key was not changed")
	}
}

// An infected file never has a receipt, whenever it is asked for after the scan; nor has any without a key.
func TestNoReceipt(t *testing.T) {
	t.Parallel()
	private, _ := newReceiptKey(t)
	r := signing(t, "TRAMO_RECEIPT_KEY_FILE="+private)
	u := newUser(t)
	id := idOf(u.send(r, eicar(), "filename", "a.txt"))
	url := r.URL + "/api/uploads/" + id
	if up, _ := u.await(url); up.Status != "failed" {
		t.Fatalf("%+v", up)
	}
	if a := u.do("GET", url+"/receipt", nil); a.status != http.StatusConflict || a.problem(t).Type != "/problems/no-receipt" ||
		!strings.Contains(a.problem(t).Detail, "Keep the original") {
		t.Errorf("%d %s", a.status, a.body)
	}
	without := tramo.replicas[0]
	u.do("GET", without.URL+"/api/uploads/"+id+"/receipt", nil).want(t, http.StatusNotImplemented, "receipts-off")
	if !strings.Contains(without.Output(), "no receipts: TRAMO_RECEIPT_KEY_FILE is not set") {
		t.Error("the server did not say that it has no key")
	}
	nobody := user{t: t}
	a := nobody.do("GET", without.URL+"/.well-known/jwks.json", nil)
	if string(a.body) != `{"keys":[]}` || a.header.Get("Content-Type") != "application/jwk-set+json" || !strings.HasPrefix(a.header.Get("Cache-Control"), "public") {
		t.Errorf("its keys: %s %v", a.body, a.header)
	}
}
