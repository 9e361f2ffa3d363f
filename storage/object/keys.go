package object

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
)

// ErrForeignKey says that a link was asked for an object that is not the upload's, or for an upload that is not the caller's.
// The cause is a wrong row, never a mistake of the client.
var ErrForeignKey = errors.New("object belongs to another upload")

// DefaultProject is the project of an upload that names none.
const DefaultProject = "default"

// ProjectPattern is what a project's name may be: it becomes a part of object keys.
const ProjectPattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`

var project = regexp.MustCompile(ProjectPattern)

// ValidProject reports whether the name matches [ProjectPattern].
func ValidProject(name string) bool { return project.MatchString(name) }

// Keys makes the keys of one upload's objects. All keys are made here, and each begins with the tenant's prefix.
type Keys struct {
	Tenant  uuid.UUID
	Project string
	Upload  uuid.UUID
}

func (k Keys) under(name string) string {
	return fmt.Sprintf("tenants/%s/projects/%s/uploads/%s/%s", k.Tenant, k.Project, k.Upload, name)
}

// Original is the key of the uploaded file. It contains the fence of the lease under which it is written, so that a late write
// of a holder that has lost its lease cannot replace an object that counts.
func (k Keys) Original(fence int64) string { return k.under(fmt.Sprintf("original-%d", fence)) }

// Quarantine is the key of the uploaded file while it is in quarantine.
func (k Keys) Quarantine(fence int64) string { return quarantinePrefix + k.Original(fence) }

// Thumbnail is the key of the picture drawn for a box of size pixels.
func (k Keys) Thumbnail(size int) string { return k.under(fmt.Sprintf("thumbnails/%d.webp", size)) }

// IsThumbnail reports whether the key is one that [Keys.Thumbnail] makes.
func (k Keys) IsThumbnail(key string) bool { return strings.HasPrefix(key, k.under("thumbnails/")) }

// Prefix begins all keys of the upload and no others; in quarantine it follows the quarantine's prefix.
func (k Keys) Prefix() string { return k.under("") }

// TenantPrefix begins all keys of a tenant and no others; in quarantine it follows the quarantine's prefix.
func TenantPrefix(tenant uuid.UUID) string { return allPrefix + tenant.String() + "/" }

const (
	// allPrefix begins the keys of all tenants.
	allPrefix = "tenants/"
	// quarantinePrefix comes before it in the keys of quarantined objects. A bucket policy can restrict it to workers.
	quarantinePrefix = "quarantine/"
)

// prefixes returns the prefix outside and inside quarantine.
func prefixes(prefix string) []string { return []string{prefix, quarantinePrefix + prefix} }

// IsQuarantined reports whether the key is one that [Keys.Quarantine] makes.
func IsQuarantined(key string) bool { return strings.HasPrefix(key, quarantinePrefix+allPrefix) }

// check returns [ErrForeignKey] unless the upload belongs to the tenant in ctx and to a project that the user sees, and the key
// is one of the upload's and not in quarantine. It trusts no row, and is called before an object is linked.
func (k Keys) check(ctx context.Context, key string) error {
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	if owner, ok := ParseKey(key); !ok || IsQuarantined(key) || owner != k || k.Tenant != who.Tenant || !who.Sees(k.Project) {
		return fmt.Errorf("%w: a key for upload %s", ErrForeignKey, k.Upload)
	}
	return nil
}

// ParseKey returns the upload of a key, in quarantine or not. ok is false for a key that no upload can have.
func ParseKey(key string) (k Keys, ok bool) {
	key = strings.TrimPrefix(key, quarantinePrefix)
	words := strings.SplitN(key, "/", 7)
	if len(words) != 7 {
		return Keys{}, false
	}
	var err1, err2 error
	k.Tenant, err1 = uuid.Parse(words[1])
	k.Upload, err2 = uuid.Parse(words[5])
	k.Project = words[3]
	return k, err1 == nil && err2 == nil && ValidProject(k.Project) && path.Clean(key) == key && strings.HasPrefix(key, k.Prefix())
}
