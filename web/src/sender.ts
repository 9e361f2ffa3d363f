// Sends one file by tus. This module wraps tus-js-client and works around its gaps; it knows no list and no page.

import { Upload, type DetailedError, type PreviousUpload } from 'tus-js-client'
import { endpoint, problemDetail } from './api'
import { fingerprint, type ClientIds } from './ids'
import { classify, retryDelays, type Trouble } from './retry'

// A file up to here travels in its creation request: one request, not two. A larger one is created
// first, so that its URL is stored before its bytes leave and a reload in the middle resumes it.
const createWithDataUpTo = 8_000_000

// When a phone changes networks, a request can stay open for ever without an error.
const stallMs = 90_000

export interface SenderEvents {
  progress(sent: number): void
  retrying(): void
  /** The last byte was acknowledged; id is the server's. */
  done(id: string): void
  /** Sending stopped. `detail` is the server's text for people, or ''. */
  stopped(trouble: Trouble, status: number, detail: string): void
  /** The file was changed, moved or deleted on the device after it was chosen. */
  unreadable(): void
}

export interface SenderOptions {
  file: File
  project: string
  token: () => string | null
  clientIds: ClientIds
  events: SenderEvents
}

/** Thrown into tus-js-client on an answer to HEAD that it would take for "start again from byte 0". */
class HeadRefused extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(`HEAD answered ${status}`)
  }
}

export class Sender {
  private readonly fp: string
  private upload: Upload | null = null
  private url: string | null = null
  private stall: ReturnType<typeof setTimeout> | undefined
  private run = 0
  private waiting = false
  private tokenUsed: string | null = null

  constructor(private readonly options: SenderOptions) {
    this.fp = fingerprint(options.file, options.project)
  }

  /** Starts, or resumes from the server's offset. Safe to call again after pause or stopped. */
  async start(): Promise<void> {
    const run = ++this.run
    this.waiting = false
    this.watchStall(stallMs)
    const upload = new Upload(this.options.file, this.tusOptions(() => run === this.run))
    this.upload = upload
    const previous = newest(await upload.findPreviousUploads())
    if (run !== this.run) return
    if (previous) upload.resumeFromPreviousUpload(previous)
    else if (this.url) upload.url = this.url
    upload.start()
  }

  pause(): void {
    this.run++
    clearTimeout(this.stall)
    void this.upload?.abort()
  }

  /** Starts a waiting retry at once, because the connection may be back. */
  hurry(): void {
    if (!this.waiting) return
    this.pause()
    void this.start()
  }

  /** Stops, and deletes the upload on the server. Resolves when the server has answered or cannot be reached. */
  async cancel(): Promise<void> {
    this.pause()
    this.options.clientIds.forget(this.fp)
    if (!this.upload) return
    if (!this.upload.url && this.url) this.upload.url = this.url
    // If the DELETE fails, the upload stays unfinished on the server until it expires.
    await this.upload.abort(true).catch(() => undefined)
  }

  /** The token of the last request, to distinguish a refused token from its successor. */
  get lastToken(): string | null {
    return this.tokenUsed
  }

  private tusOptions(current: () => boolean): ConstructorParameters<typeof Upload>[1] {
    const { file, project, token, clientIds, events } = this.options
    const metadata: Record<string, string> = { filename: file.name, client_id: clientIds.get(this.fp) }
    if (file.type) metadata['filetype'] = file.type
    if (project) metadata['project'] = project

    return {
      endpoint: endpoint(),
      metadata,
      fingerprint: () => Promise.resolve(this.fp),
      retryDelays: [...retryDelays],
      removeFingerprintOnSuccess: true,
      uploadDataDuringCreation: file.size <= createWithDataUpTo,

      onBeforeRequest: (req) => {
        this.tokenUsed = token()
        if (this.tokenUsed) req.setHeader('Authorization', `Bearer ${this.tokenUsed}`)
      },

      onAfterResponse: (req, res) => {
        const upload = this.upload
        if (!upload || !current()) return
        const status = res.getStatus()
        if (req.getMethod() === 'HEAD') {
          const gone = status === 404 || status === 410
          // The old client id still belongs to the upload that is gone.
          if (gone) upload.options.metadata = { ...metadata, client_id: clientIds.renew(this.fp) }
          const understood = status < 300 || status === 423 || gone
          if (!understood) throw new HeadRefused(status, problemDetail(res.getBody()))
        }
        // A repeated creation is answered with the upload that exists. With this option on,
        // tus-js-client goes on from the answer's offset and not from 0.
        if (req.getMethod() === 'POST' && status < 300 && res.getHeader('Upload-Offset')) {
          upload.options.uploadDataDuringCreation = true
        }
      },

      onShouldRetry: (err) => {
        if (!current()) return false
        const again = classify(refusal(err).status) === 'transient' && navigator.onLine
        if (!again) return false
        // The body of a creation whose answer was lost may have arrived: ask for the offset before sending it again.
        const upload = this.upload
        if (upload && !upload.url) upload.options.uploadDataDuringCreation = false
        this.waiting = true
        this.watchStall(Math.max(...retryDelays) + stallMs)
        events.retrying()
        void this.checkReadable(current)
        return true
      },

      onUploadUrlAvailable: () => {
        if (current()) this.url = this.upload?.url ?? null
      },

      onProgress: (sent) => {
        if (!current()) return
        this.waiting = false
        this.watchStall(stallMs)
        events.progress(sent)
      },

      onSuccess: () => {
        if (!current()) return
        this.url = this.upload?.url ?? this.url
        this.run++
        clearTimeout(this.stall)
        clientIds.forget(this.fp)
        events.done(idOf(this.url ?? ''))
      },

      onError: (err) => {
        if (!current()) return
        this.run++
        clearTimeout(this.stall)
        const { status, detail } = refusal(err)
        events.stopped(classify(status), status, detail)
      },
    }
  }

  private watchStall(ms: number): void {
    clearTimeout(this.stall)
    this.stall = setTimeout(() => {
      this.pause()
      this.options.events.retrying()
      void this.start()
    }, ms)
  }

  // The browser reports a file that it cannot read any more as a network error.
  private async checkReadable(current: () => boolean): Promise<void> {
    try {
      await this.options.file.slice(0, 1).arrayBuffer()
    } catch {
      if (!current()) return
      this.pause()
      this.options.events.unreadable()
    }
  }
}

function refusal(err: Error | DetailedError): { status: number; detail: string } {
  if ('causingError' in err && err.causingError instanceof HeadRefused) return err.causingError
  const res = 'originalResponse' in err ? err.originalResponse : null
  return res ? { status: res.getStatus(), detail: problemDetail(res.getBody()) } : { status: 0, detail: '' }
}

function newest(previous: PreviousUpload[]): PreviousUpload | null {
  const resumable = previous.filter((p) => p.uploadUrl)
  resumable.sort((a, b) => Date.parse(b.creationTime) - Date.parse(a.creationTime))
  return resumable[0] ?? null
}

/** The upload's id is the last segment of its URL. */
export function idOf(url: string): string {
  const path = url.split(/[?#]/, 1)[0]!.replace(/\/+$/, '')
  return decodeURIComponent(path.slice(path.lastIndexOf('/') + 1))
}
