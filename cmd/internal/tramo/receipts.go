package tramo

import (
	"os"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/hooks"
)

// receiptSettings say who signs receipts.
type receiptSettings struct {
	ReceiptKeyFile         string `placeholder:"FILE" help:"Ed25519 private key that signs receipts, as PEM; openssl genpkey -algorithm ed25519 makes one. Without it there are no receipts."`
	ReceiptRetiredKeysFile string `placeholder:"FILE" help:"Public keys to publish beside that of the key in use, as PEM, one after another: those that signed receipts before."`
}

// receipts reads the keys. Receipts are issued by the address that clients know, if there is one.
func (s receiptSettings) receipts(issuer string, m *cli.Mistakes) hooks.ReceiptConfig {
	if issuer == "" {
		issuer = "tramo"
	}
	return hooks.ReceiptConfig{
		Issuer:  issuer,
		Key:     fromFile("TRAMO_RECEIPT_KEY_FILE", s.ReceiptKeyFile, hooks.ParseReceiptKey, m),
		Retired: fromFile("TRAMO_RECEIPT_RETIRED_KEYS_FILE", s.ReceiptRetiredKeysFile, hooks.ParseReceiptPublicKeys, m),
	}
}

// fromFile parses what the file holds that the variable names; no name is the zero value.
func fromFile[T any](variable, name string, parse func([]byte) (T, error), m *cli.Mistakes) (value T) {
	if name == "" {
		return value
	}
	text, err := os.ReadFile(name)
	if err == nil {
		value, err = parse(text)
	}
	m.Check(variable, err)
	return value
}
