// One line of the list: a chosen file and what is known of it.

import type { FailureReason, UploadState } from './api'
import { Speed } from './speed'

export type Status =
  | 'queued'
  | 'uploading'
  | 'paused'
  | 'uploaded'
  | 'processing'
  | 'completed'
  | 'failed'
  | 'cancelled'

export type Failure =
  | { kind: 'server'; reason: FailureReason | 'expired'; detail: string }
  | { kind: 'refused'; status: number; detail: string }
  | { kind: 'unreadableHere' }

export interface Item {
  readonly key: number
  readonly fingerprint: string
  readonly file: File
  readonly project: string
  status: Status
  /** Bytes sent so far, as the browser counts them. */
  sent: number
  /** Who paused it; the network resumes what the network paused. */
  pausedBy: 'person' | 'network' | null
  retrying: boolean
  /** Whether progress counts as speed. */
  counting: boolean
  failure: Failure | null
  /** The server's id, once the last byte was acknowledged. */
  id: string | null
  /** The latest state from the server. */
  state: UploadState | null
  readonly speed: Speed
}

export function newItem(key: number, file: File, project: string, fingerprint: string): Item {
  return {
    key,
    fingerprint,
    file,
    project,
    status: 'queued',
    sent: 0,
    pausedBy: null,
    retrying: false,
    counting: false,
    failure: null,
    id: null,
    state: null,
    speed: new Speed(),
  }
}

/** Applies a state from the server to the item. */
export function applyState(item: Item, state: UploadState): void {
  item.state = state
  switch (state.status) {
    case 'processing':
    case 'completed':
    case 'cancelled':
      item.status = state.status
      break
    case 'failed':
    case 'expired':
      item.status = 'failed'
      item.failure = {
        kind: 'server',
        reason: state.status === 'expired' ? 'expired' : (state.failure?.reason ?? 'dead_lettered'),
        detail: state.failure?.detail ?? '',
      }
      break
    default:
      item.status = 'uploaded'
  }
}

/** Whether sending it again can help. A file that the server examined and refused stays refused. */
export function canRetry(item: Item): boolean {
  return item.status === 'failed' && item.failure?.kind === 'refused'
}

export interface Totals {
  count: number
  safe: number
  /** Is safe, but should be looked at before it is deleted. */
  doubtful: number
  failed: number
  retryable: number
  /** Has bytes to send. */
  sending: number
  /** Is sending now. */
  moving: number
  /** Is sent, but not in a final state. */
  checking: number
  pausable: number
  resumable: number
  sentBytes: number
  allBytes: number
}

/** Whether a person should look at the file before deleting it: it is stored as it was sent, but not shown whole. */
export function isDoubtful(state: UploadState | null): boolean {
  return state?.status === 'completed' && (state.partial || state.no_thumbnail === 'unreadable')
}

/** Sums over the list. Cancelled items do not count; failed items count without their bytes. */
export function totals(items: Iterable<Item>): Totals {
  const sum: Totals = {
    count: 0,
    safe: 0,
    doubtful: 0,
    failed: 0,
    retryable: 0,
    sending: 0,
    moving: 0,
    checking: 0,
    pausable: 0,
    resumable: 0,
    sentBytes: 0,
    allBytes: 0,
  }
  for (const item of items) {
    if (item.status === 'cancelled') continue
    sum.count++
    if (item.status === 'failed') {
      sum.failed++
      if (canRetry(item)) sum.retryable++
      continue
    }
    sum.allBytes += item.file.size
    sum.sentBytes += Math.min(item.sent, item.file.size)
    if (isDoubtful(item.state)) sum.doubtful++
    if (item.status === 'completed') sum.safe++
    else if (item.status === 'uploaded' || item.status === 'processing') sum.checking++
    else sum.sending++
    if (item.status === 'queued' || item.status === 'uploading') sum.pausable++
    if (item.status === 'uploading') sum.moving++
    if (item.status === 'paused') sum.resumable++
  }
  return sum
}
