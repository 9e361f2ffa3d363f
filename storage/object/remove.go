package object

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/uuid"
)

// RemoveUpload removes all objects and multipart uploads of an upload, those in quarantine and those that no row names
// included, and returns their number. It can be repeated.
func (b *Bucket) RemoveUpload(ctx context.Context, k Keys) (removed int, err error) {
	if k.Tenant == uuid.Nil || k.Upload == uuid.Nil || !ValidProject(k.Project) {
		return 0, fmt.Errorf("remove upload: %+v is not complete", k)
	}
	for _, prefix := range prefixes(k.Prefix()) {
		n, err := b.removeAll(ctx, prefix)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// RemoveUnfinished removes all that S3 has of an upload that has ended without being kept, outside of quarantine: what its rows
// name, and what they do not because a process died. Nil names nothing: then S3 is not asked. Nobody may be writing the upload.
// It can be repeated.
func (b *Bucket) RemoveUnfinished(ctx context.Context, k Keys, key, multipart *string) error {
	if key == nil {
		return nil
	}
	if owner, ok := ParseKey(*key); !ok || owner != k {
		return fmt.Errorf("%w: a key of upload %s", ErrForeignKey, k.Upload)
	}
	if multipart != nil {
		if err := b.Abort(ctx, *key, *multipart); err != nil {
			return err
		}
	}
	if err := b.Delete(ctx, *key); err != nil {
		return err
	}
	if _, err := b.removeAll(ctx, k.Prefix()); !errors.Is(err, ErrUnsupported) { // by a store that lists no multipart uploads
		return err
	}
	return nil
}

// RemoveSomeOf removes up to a thousand objects and multipart uploads of a tenant, and returns their number: 0 if there are
// no more.
func (b *Bucket) RemoveSomeOf(ctx context.Context, tenant uuid.UUID) (removed int, err error) {
	if tenant == uuid.Nil {
		return 0, errors.New("remove a tenant's objects: no tenant is given")
	}
	for _, prefix := range prefixes(TenantPrefix(tenant)) {
		if removed, err = b.removeSome(ctx, prefix); removed > 0 || err != nil {
			return removed, err
		}
	}
	return 0, nil
}

func (b *Bucket) removeAll(ctx context.Context, prefix string) (removed int, err error) {
	for {
		n, err := b.removeSome(ctx, prefix)
		removed += n
		if err != nil || n == 0 {
			return removed, err
		}
	}
}

// removeSome aborts multipart uploads before it deletes objects, so that it finds the object of one that completes meanwhile.
// It counts what it lists, so 0 means that S3 lists nothing.
func (b *Bucket) removeSome(ctx context.Context, prefix string) (removed int, err error) {
	begun, _, err := b.listMultiparts(ctx, prefix, "")
	if err != nil {
		return 0, fmt.Errorf("list multipart uploads to abort: %w", err)
	}
	for _, u := range begun {
		if err := b.Abort(ctx, u.Key, u.MultipartID); err != nil {
			return removed, err
		}
		removed++
	}
	listed, _, err := b.listObjects(ctx, prefix, "")
	if err != nil {
		return removed, fmt.Errorf("list objects to delete: %w", err)
	}
	if len(listed) == 0 {
		return removed, nil
	}
	keys := make([]string, len(listed)) // S3 lists no more than DeleteObjects takes: 1,000
	for i, o := range listed {
		keys[i] = o.Key
	}
	deleted, err := b.deleteAll(ctx, keys)
	if errors.Is(err, ErrUnsupported) {
		deleted, err = b.deleteEach(ctx, keys)
	}
	return removed + deleted, err
}

// deleteAll deletes up to 1,000 objects with one request.
func (b *Bucket) deleteAll(ctx context.Context, keys []string) (deleted int, err error) {
	ids := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		ids[i].Key = &keys[i]
	}
	out, err := b.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &b.name, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("delete objects: %w", err)
	case len(out.Errors) > 0:
		return len(ids) - len(out.Errors), fmt.Errorf("delete objects: %d are left, one because of %s",
			len(out.Errors), aws.ToString(out.Errors[0].Code))
	}
	return len(ids), nil
}

func (b *Bucket) deleteEach(ctx context.Context, keys []string) (deleted int, err error) {
	for i, key := range keys {
		if err := b.Delete(ctx, key); err != nil {
			return i, err
		}
	}
	return len(keys), nil
}
