// The state of an ordinary completed upload, for tests.

import type { UploadState } from './api'

export function state(over: Partial<UploadState>): UploadState {
  return {
    id: 'u1',
    status: 'completed',
    offset: 100,
    size: 100,
    filename: 'a.jpg',
    type: 'image/jpeg',
    project: 'default',
    batch: null,
    batch_id: null,
    client_id: null,
    created_at: '2026-01-01T00:00:00Z',
    updated_at: '2026-01-01T00:00:00Z',
    expires_at: null,
    uploaded_at: null,
    completed_at: null,
    sha256: null,
    content_url: null,
    deleted_at: null,
    purge_at: null,
    failure: null,
    thumbnails: [],
    facts: null,
    scan: null,
    type_mismatch: false,
    partial: false,
    placeholder: null,
    no_thumbnail: null,
    pages: null,
    title: null,
    ...over,
  }
}
