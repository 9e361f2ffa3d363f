package object_test

import (
	"errors"
	"path"
	"strings"
	"testing"
	"unicode"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
)

func TestKeysStayUnderTheTenant(t *testing.T) {
	t.Parallel()
	k := object.Keys{Tenant: uuid.New(), Project: "torre-norte", Upload: uuid.New()}
	seen := map[string]bool{}
	for _, key := range []string{
		k.Original(1), k.Original(2), k.Original(12), k.Thumbnail(160), k.Thumbnail(480),
	} {
		checkKey(t, k, key)
		if seen[key] {
			t.Errorf("two things share the key %s", key)
		}
		seen[key] = true
	}
}

func checkKey(t *testing.T, k object.Keys, key string) {
	t.Helper()
	prefix := "tenants/" + k.Tenant.String() + "/projects/" + k.Project + "/uploads/" + k.Upload.String() + "/"
	if !strings.HasPrefix(key, prefix) || path.Clean(key) != key {
		t.Errorf("key %q is not below %q", key, prefix)
	}
}

func TestValidProject(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		object.DefaultProject: true, "Torre_2.norte-b": true, "0": true, strings.Repeat("a", 64): true,
		"": false, ".": false, "..": false, ".a": false, "-a": false, "a/b": false, `a\b`: false, "a b": false, "a\n": false,
		"a\x00": false, "ñ": false, "a%2fb": false, strings.Repeat("a", 65): false, "a/../../x": false,
	} {
		if got := object.ValidProject(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

// Whatever a stranger calls a project: if it is accepted, its keys stay below the tenant's prefix.
func FuzzValidProject(f *testing.F) {
	for _, s := range []string{"torre", "..", "a/../b", "a\nb", "a\n", "\xff", "a..b", "A" + strings.Repeat("z", 63), "ａ"} {
		f.Add(s)
	}
	k := object.Keys{Tenant: uuid.New(), Upload: uuid.New()}
	f.Fuzz(func(t *testing.T, name string) {
		if !object.ValidProject(name) {
			return
		}
		bad := func(r rune) bool {
			return r == '/' || r == '\\' || unicode.IsControl(r) || unicode.IsSpace(r) || r > unicode.MaxASCII
		}
		if name == "." || name == ".." || strings.ContainsFunc(name, bad) || len(name) > 64 {
			t.Errorf("%q is accepted", name)
		}
		k := k
		k.Project = name
		checkKey(t, k, k.Original(1))
	})
}

func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		part, largest int64
		ok            bool
	}{
		{object.MinPartSize, 100 << 20, true},
		{8 << 20, 100 << 20, true},
		{object.MinPartSize - 1, 1, false},
		{0, 1, false},
		{-1, 1, false},
		{object.MinPartSize, object.MinPartSize * object.MaxParts / 2, false},
		{object.MinPartSize, object.MinPartSize*object.MaxParts/2 - 1, true},
	} {
		conf := object.DefaultConfig()
		conf.PartSize = c.part
		if err := errors.Join(conf.Validate(), conf.ValidateMaxUpload(c.largest)); (err == nil) != c.ok {
			t.Errorf("parts of %d for %d bytes: %v", c.part, c.largest, err)
		}
	}
	for endpoint, ok := range map[string]bool{
		"": true, "https://s3.sa-east-1.amazonaws.com": true, "http://127.0.0.1:9000": true,
		"127.0.0.1:9000": false, "s3://bucket": false, "http://": false, "::": false,
	} {
		if err := (object.BucketConfig{Name: "uploads", Endpoint: endpoint}).Validate(); (err == nil) != ok {
			t.Errorf("endpoint %q: %v", endpoint, err)
		}
	}
}

// What is in quarantine is below a prefix of its own, and nothing else is.
func TestQuarantineKeys(t *testing.T) {
	t.Parallel()
	k := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	if got := k.Quarantine(7); got != "quarantine/"+k.Original(7) || !object.IsQuarantined(got) {
		t.Errorf("%s", got)
	}
	for _, key := range []string{k.Original(7), k.Thumbnail(160), "quarantine/", "quarantine/x", "x/" + k.Quarantine(7), ""} {
		if object.IsQuarantined(key) {
			t.Errorf("%q is taken for one in quarantine", key)
		}
	}
}

// Each key leads back to its upload, and nothing else does to any.
func TestParseKey(t *testing.T) {
	t.Parallel()
	k := object.Keys{Tenant: uuid.New(), Project: "torre-norte", Upload: uuid.New()}
	for _, key := range []string{k.Original(7), k.Thumbnail(160), k.Prefix() + "tail-7-0", k.Quarantine(7)} {
		if got, ok := object.ParseKey(key); !ok || got != k {
			t.Errorf("%s: %+v, %t", key, got, ok)
		}
	}
	good := k.Original(7)
	for _, key := range []string{
		"", "tenants/", k.Prefix(), strings.TrimSuffix(k.Prefix(), "/"), "/" + good, "x" + good,
		strings.Replace(good, "projects", "project", 1), strings.Replace(good, "torre-norte", "..", 1),
		strings.Replace(good, k.Upload.String(), "nobody", 1), strings.Replace(good, k.Tenant.String(), "nobody", 1),
		strings.Replace(good, k.Upload.String(), "{"+k.Upload.String()+"}", 1), // which is a way to write a UUID
		strings.Replace(good, k.Upload.String(), strings.ReplaceAll(k.Upload.String(), "-", ""), 1),
		k.Prefix() + "../" + uuid.NewString() + "/original-7", k.Prefix() + "thumbnails/..", k.Prefix() + "./original-7",
		"quarantine/" + k.Quarantine(7), "/" + k.Quarantine(7), "quarantine//" + good, "quarantine/../" + good, "quarantine/",
		k.Prefix() + "/original-7", good + "/", // which a browser would not ask for as it was signed
	} {
		if got, ok := object.ParseKey(key); ok {
			t.Errorf("%q is taken for a key of %+v", key, got)
		}
	}
}
