// Receives changes over one event stream, so that the page does not poll while it is open.

import type { UploadState } from './api'

const firstRetryMs = 1000
const lastRetryMs = 30_000
// Files follow each other closely, so the stream stays open for a moment when no upload waits for a change.
const lingerMs = 30_000
// A server that sends nothing for two heartbeats, or never sends ready, is considered gone.
const silentMs = 40_000

/** The part of EventSource that this module uses. */
export interface Source {
  addEventListener(name: string, listener: (e: MessageEvent<string>) => void): void
  onerror: ((e: Event) => void) | null
  close(): void
}

export interface LiveOptions {
  /** A fresh ticket; each opens one stream. */
  ticket(): Promise<string>
  open(url: string): Source
  /** Receives the state of one of this person's uploads. It may be called twice with the same state. */
  told(state: UploadState): void
  /** Receives whether the stream delivers all changes from now on. */
  changed(live: boolean): void
  /** Returns whether anything waits for a change. */
  wanted(): boolean
}

export class Live {
  private source: Source | null = null
  private opening = false
  private live = false
  private lastId = ''
  private retryMs = firstRetryMs
  private retry: ReturnType<typeof setTimeout> | undefined
  private linger: ReturnType<typeof setTimeout> | undefined
  private silence: ReturnType<typeof setTimeout> | undefined

  constructor(private readonly options: LiveOptions) {}

  /** Call it whenever the result of wanted may have changed. */
  update(): void {
    if (this.options.wanted()) {
      clearTimeout(this.linger)
      this.linger = undefined
      if (!this.source && !this.opening && this.retry === undefined) void this.open()
    } else if (this.source && this.linger === undefined) {
      this.linger = setTimeout(() => this.close(), lingerMs)
    }
  }

  /** Ends the stream at once: the page is hidden, or the access code has changed. */
  close(): void {
    for (const timer of [this.retry, this.linger, this.silence]) clearTimeout(timer)
    this.retry = this.linger = this.silence = undefined
    this.source?.close()
    this.source = null
    this.set(false)
  }

  private async open(): Promise<void> {
    this.opening = true
    try {
      const query = new URLSearchParams({ ticket: await this.options.ticket(), mine: 'true' })
      if (this.lastId) query.set('last_event_id', this.lastId)
      if (this.options.wanted()) this.follow(this.options.open(`/api/events?${query.toString()}`))
    } catch {
      this.again()
    } finally {
      this.opening = false
    }
  }

  private follow(source: Source): void {
    this.source = source
    const on = (name: string, heard: (data: string) => void): void => {
      source.addEventListener(name, (e) => {
        if (this.source !== source) return
        if (e.lastEventId) this.lastId = e.lastEventId
        this.listenOn()
        heard(e.data)
      })
    }
    on('upload', (data) => this.options.told(JSON.parse(data) as UploadState))
    on('ready', () => {
      this.retryMs = firstRetryMs
      this.set(true)
    })
    on('end', () => this.again())
    // The browser would reconnect by itself, but with a ticket that is already used.
    source.onerror = () => {
      if (this.source === source) this.again()
    }
    this.listenOn()
  }

  /** Heartbeats are comments, which a page does not see. So a stream without messages is reopened. */
  private listenOn(): void {
    clearTimeout(this.silence)
    this.silence = setTimeout(() => this.again(), silentMs)
  }

  private again(): void {
    this.close()
    this.retry = setTimeout(() => {
      this.retry = undefined
      this.update()
    }, this.retryMs)
    this.retryMs = Math.min(lastRetryMs, this.retryMs * 2)
  }

  private set(live: boolean): void {
    if (this.live === live) return
    this.live = live
    this.options.changed(live)
  }
}
