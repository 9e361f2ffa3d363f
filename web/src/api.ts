// The JSON side of the server: reading the state of uploads.

import { problemWords } from './i18n'

export type ServerStatus =
  | 'pending'
  | 'uploading'
  | 'uploaded'
  | 'processing'
  | 'completed'
  | 'failed'
  | 'expired'
  | 'cancelled'

export type FailureReason =
  | 'infected'
  | 'unscannable'
  | 'unreadable'
  | 'type_mismatch'
  | 'type_not_allowed'
  | 'checksum_mismatch'
  | 'dead_lettered'

export interface Derivative {
  size: number
  width: number
  height: number
  bytes: number
  type: string
  url: string
}

export interface UploadState {
  id: string
  status: ServerStatus
  offset: number
  size: number
  filename: string
  type: string
  project: string | null
  created_at: string
  failure: { reason: FailureReason; detail: string } | null
  derivatives: Derivative[] | null
}

export interface UploadPage {
  items: UploadState[]
  next: string | null
}

/** Any answer of the API that is not a success. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(detail || `HTTP ${status}`)
  }
}

/** Absolute, because tus-js-client resolves a relative Location against it. */
export const endpoint = (): string => new URL('/api/uploads', location.href).href

/** The person-readable `detail` of a problem+json body, or its title, or ''. */
export function problemDetail(body: string): string {
  try {
    const problem: unknown = JSON.parse(body)
    if (typeof problem !== 'object' || problem === null) return ''
    const { type, detail, title } = problem as { type?: unknown; detail?: unknown; title?: unknown }
    const own = problemWords(type)
    if (own) return own
    if (typeof detail === 'string' && detail) return detail
    return typeof title === 'string' ? title : ''
  } catch {
    return ''
  }
}

/** The URL of the picture that fits a row, or null while there is none. */
export function thumbnailOf(state: UploadState): string | null {
  return state.derivatives?.find((d) => d.size === 160)?.url ?? null
}

export function isSettled(status: ServerStatus): boolean {
  return status === 'completed' || status === 'failed' || status === 'expired' || status === 'cancelled'
}

export class Api {
  constructor(private readonly token: () => string | null) {}

  upload(id: string): Promise<UploadState> {
    return this.get<UploadState>(`${endpoint()}/${encodeURIComponent(id)}`)
  }

  recent(limit: number): Promise<UploadPage> {
    return this.get<UploadPage>(`${endpoint()}?limit=${limit}`)
  }

  /** Opens one event stream, within half a minute. */
  async ticket(): Promise<string> {
    return (await this.ask<{ ticket: string }>('POST', '/api/events/tickets')).ticket
  }

  private get<T>(url: string): Promise<T> {
    return this.ask<T>('GET', url)
  }

  private async ask<T>(method: string, url: string): Promise<T> {
    const token = this.token()
    const headers: Record<string, string> = { Accept: 'application/json' }
    if (token) headers['Authorization'] = `Bearer ${token}`
    const res = await fetch(url, { method, headers, cache: 'no-store' })
    if (!res.ok) throw new ApiError(res.status, problemDetail(await res.text()))
    return (await res.json()) as T
  }
}
