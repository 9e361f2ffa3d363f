// Texts for the state of an upload.

import type { UploadState } from './api'
import { isKey, language, t } from './i18n'
import type { Failure, Item } from './item'

export function failureText(failure: Failure): string {
  if (failure.kind === 'unreadableHere') return t('unreadableHere')
  if (failure.kind === 'refused') return failure.detail || t('refused', { status: failure.status })
  // The server's detail is English. A reason that is newer than this page has no text here.
  if (language === 'en' && failure.detail) return failure.detail
  return isKey(failure.reason) ? t(failure.reason) : failure.detail || t('failed')
}

export function stateText(item: Item, hasToken: boolean): string {
  switch (item.status) {
    case 'queued':
      return t(hasToken ? 'queued' : 'waitingAccess')
    case 'uploading':
      return t(item.retrying ? 'retrying' : 'uploading')
    case 'paused':
      return t(item.pausedBy === 'network' ? 'pausedNetwork' : 'paused')
    case 'failed':
      return item.failure ? failureText(item.failure) : t('failed')
    default:
      return t(item.status)
  }
}

export function serverStateText(state: UploadState): string {
  switch (state.status) {
    case 'pending':
    case 'uploading':
      return t('unfinished')
    case 'concatenated': // a partial upload, which is never listed
      return t('uploaded')
    case 'failed':
      return state.failure
        ? failureText({ kind: 'server', reason: state.failure.reason, detail: state.failure.detail })
        : t('failed')
    default:
      return t(state.status)
  }
}

/** Title and pages of a document. */
export function aboutText(state: UploadState): string {
  const pages = state.pages === null ? '' : state.pages === 1 ? t('pagesOne') : t('pages', { n: state.pages })
  return [state.title?.trim(), pages].filter(Boolean).join(' · ')
}

/** Why the thumbnail of a stored file is partial or missing. */
export function noteText(state: UploadState): string {
  if (state.status !== 'completed') return ''
  if (state.partial) return t(state.type?.startsWith('image/') ? 'partialPhoto' : 'partialFile')
  if (!state.no_thumbnail) return ''
  if (state.no_thumbnail === 'unreadable') return t('no_thumbnail_unreadable')
  // A reason that is newer than this page has no text here.
  const key = `no_thumbnail_${state.no_thumbnail}`
  return `${isKey(key) ? t(key) : t('noThumbnail')} ${t('fileIsSafe')}`
}

/** The icon for a type. */
export function iconFor(type: string, name: string): 'photo' | 'video' | 'pdf' | 'document' {
  if (type.startsWith('image/') || /\.(jpe?g|png|heic|heif|webp|gif|avif)$/i.test(name)) return 'photo'
  if (type.startsWith('video/')) return 'video'
  if (type === 'application/pdf' || /\.pdf$/i.test(name)) return 'pdf'
  return 'document'
}
