package hooks_test

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
)

// A receipt is verified with the published keys alone, without a request.
func ExampleReceipt() {
	config := hooks.ReceiptConfig{Issuer: "https://uploads.example.com", Key: ed25519.NewKeyFromSeed(make([]byte, 32))}
	receipts, err := hooks.NewReceipts(nil, config)
	if err != nil {
		panic(err)
	}
	uploaded := time.Date(2026, 3, 14, 19, 20, 5, 0, time.UTC)
	receipt, err := config.Sign(hooks.Receipt{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: config.Issuer, Subject: "01890a5d-ac96-774b-bcce-b302099a8057", IssuedAt: jwt.NewNumericDate(uploaded),
		},
		Tenant: uuid.MustParse("01890a5d-0000-7000-8000-000000000000"), Filename: "obra.jpg", Size: 3 << 20, UploadedAt: uploaded,
	})
	if err != nil {
		panic(err)
	}

	keys, err := keyfunc.NewJWKSetJSON(receipts.PublicKeys()) // as /.well-known/jwks.json serves them
	if err != nil {
		panic(err)
	}
	var r hooks.Receipt
	token, err := jwt.ParseWithClaims(receipt, &r, keys.Keyfunc,
		jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer("https://uploads.example.com"))
	if err != nil || token.Header["typ"] != hooks.ReceiptType {
		panic("not a receipt")
	}
	fmt.Println(r.Filename, r.Size, r.UploadedAt)
	// Output: obra.jpg 3145728 2026-03-14 19:20:05 +0000 UTC
}
