// The list of this visit: the chosen files, which of them are sending, and every change of state.

import { ApiError, isSettled, type Api, type UploadState } from './api'
import { fingerprint, type ClientIds } from './ids'
import { applyState, canRetry, newItem, type Item, type Status } from './item'
import { Poller } from './poller'
import { Queue } from './queue'
import type { Trouble } from './retry'
import { Sender } from './sender'
import { Speed } from './speed'
import type { Token } from './token'

const parallel = 3
// After the client has given up its own retries; other files get the slot meanwhile.
const networkRestMs = 60_000

export interface Added {
  added: number
  /** Chosen a second time, so left alone. */
  already: number
}

export class Uploads {
  readonly items = new Map<number, Item>()
  readonly speed = new Speed()
  private readonly byFingerprint = new Map<string, Item>()
  private readonly byId = new Map<string, Item>()
  private readonly senders = new Map<Item, Sender>()
  private readonly queue = new Queue<Item>(parallel, (item) => this.send(item))
  private readonly poller: Poller
  private nextKey = 1

  constructor(
    private readonly api: Api,
    private readonly token: Token,
    private readonly clientIds: ClientIds,
    private readonly changed: (item: Item) => void,
    /** Called when the number of uploads to wait for may have changed. */
    waiting: () => void,
  ) {
    this.poller = new Poller({ ask: (id) => this.ask(id) }, waiting)
    token.onChange(() => this.followToken())
    this.followToken()
    if (!navigator.onLine) this.queue.hold('offline')
  }

  add(files: Iterable<File>, project: string): Added {
    const result: Added = { added: 0, already: 0 }
    const fresh: Item[] = []
    for (const file of files) {
      const fp = fingerprint(file, project)
      const known = this.byFingerprint.get(fp)
      // Two senders of one file would compete for one upload.
      if (known && known.status !== 'failed' && known.status !== 'cancelled') {
        result.already++
        continue
      }
      const item = newItem(this.nextKey++, file, project, fp)
      this.items.set(item.key, item)
      this.byFingerprint.set(fp, item)
      fresh.push(item)
      result.added++
      this.changed(item)
    }
    for (const item of fresh) this.queue.push(item)
    return result
  }

  pause(item: Item): void {
    if (item.status !== 'queued' && item.status !== 'uploading') return
    item.pausedBy = 'person'
    this.stop(item, 'paused')
  }

  resume(item: Item): void {
    if (item.status !== 'paused') return
    this.enqueue(item, { ahead: item.sent > 0 })
  }

  retry(item: Item): void {
    if (canRetry(item)) this.enqueue(item, { ahead: true })
  }

  cancel(item: Item): void {
    if (item.status !== 'queued' && item.status !== 'uploading' && item.status !== 'paused') return
    this.stop(item, 'cancelled')
    void this.senders.get(item)?.cancel()
    this.senders.delete(item)
  }

  pauseAll(): void {
    // Waiting items first, or each freed slot would start the next one.
    const all = [...this.items.values()]
    for (const item of all) if (item.status === 'queued') this.pause(item)
    for (const item of all) this.pause(item)
  }

  resumeAll(): void {
    for (const item of this.items.values()) this.resume(item)
  }

  retryAll(): void {
    for (const item of this.items.values()) this.retry(item)
  }

  /** The device lost its network: no item starts, and running items wait. */
  offline(): void {
    this.queue.hold('offline')
    for (const item of this.queue.active) this.restOnNetwork(item)
  }

  online(): void {
    for (const item of this.items.values()) if (item.pausedBy === 'network') this.resume(item)
    this.queue.release('offline')
    this.hurry()
  }

  /** Starts waiting retries now, because the person or the network is back. */
  hurry(): void {
    for (const item of this.queue.active) if (item.retrying) this.senders.get(item)?.hurry()
  }

  visible(visible: boolean): void {
    if (!visible) {
      this.poller.pause('hidden')
      return
    }
    this.poller.resume('hidden')
    this.hurry()
  }

  get watching(): number {
    return this.poller.watching
  }

  /** While the event stream delivers changes, nothing is polled. */
  live(live: boolean): void {
    if (live) this.poller.pause('live')
    else this.poller.resume('live')
  }

  told(state: UploadState): void {
    const item = this.byId.get(state.id)
    if (!item) return
    this.apply(item, state)
    if (isSettled(state.status)) this.poller.unwatch(state.id)
  }

  /** Polls an item once more, because the link of its thumbnail may have expired. */
  async refresh(item: Item): Promise<void> {
    if (item.id) await this.ask(item.id).catch(() => undefined)
  }

  has(id: string): boolean {
    return this.byId.has(id)
  }

  private send(item: Item): void {
    item.pausedBy = null
    this.set(item, 'uploading')
    void this.senderOf(item).start()
  }

  private senderOf(item: Item): Sender {
    const known = this.senders.get(item)
    if (known) return known
    const sender: Sender = new Sender({
      file: item.file,
      project: item.project,
      token: () => this.token.get(),
      clientIds: this.clientIds,
      events: {
        progress: (sent) => this.progress(item, sent),
        retrying: () => {
          item.retrying = true
          item.counting = false
          item.speed.reset()
          this.changed(item)
        },
        done: (id) => this.sent(item, id),
        stopped: (trouble, status, detail) => this.stopped(item, sender, trouble, status, detail),
        unreadable: () => {
          item.failure = { kind: 'unreadableHere' }
          this.stop(item, 'failed')
        },
      },
    })
    this.senders.set(item, sender)
    return sender
  }

  private progress(item: Item, sent: number): void {
    const now = performance.now()
    // The first report of each attempt is the server's offset, which is not speed.
    if (item.counting) {
      item.speed.add(sent - item.sent, now)
      this.speed.add(sent - item.sent, now)
    }
    item.counting = true
    item.sent = sent
    item.retrying = false
    this.changed(item)
  }

  private sent(item: Item, id: string): void {
    item.id = id
    item.sent = item.file.size
    this.byId.set(id, item)
    this.senders.delete(item)
    this.queue.remove(item)
    this.set(item, 'uploaded')
    this.poller.watch(id)
  }

  private stopped(item: Item, sender: Sender, trouble: Trouble, status: number, detail: string): void {
    if (trouble === 'access') {
      this.token.refuse(sender.lastToken)
      this.queue.remove(item)
      this.enqueue(item, { ahead: true })
    } else if (trouble === 'transient') {
      this.restOnNetwork(item)
    } else {
      item.failure = { kind: 'refused', status, detail }
      this.stop(item, 'failed')
    }
  }

  private restOnNetwork(item: Item): void {
    item.pausedBy = 'network'
    this.stop(item, 'paused')
    setTimeout(() => {
      if (item.pausedBy === 'network' && navigator.onLine) this.resume(item)
    }, networkRestMs)
  }

  private stop(item: Item, status: Status): void {
    this.senders.get(item)?.pause()
    this.set(item, status)
    this.queue.remove(item)
  }

  private enqueue(item: Item, opts: { ahead: boolean }): void {
    item.pausedBy = null
    item.failure = null
    this.set(item, 'queued')
    this.queue.push(item, opts)
  }

  private set(item: Item, status: Status): void {
    item.status = status
    item.retrying = false
    item.counting = false
    item.speed.reset()
    this.changed(item)
  }

  private apply(item: Item, state: UploadState): void {
    applyState(item, state)
    this.changed(item) // the row writes only changes
  }

  private async ask(id: string): Promise<boolean> {
    const item = this.byId.get(id)
    if (!item) return true
    const used = this.token.get()
    try {
      const state = await this.api.upload(id)
      this.apply(item, state)
      return isSettled(state.status)
    } catch (err) {
      if (err instanceof ApiError && err.status === 401) this.token.refuse(used)
      throw err
    }
  }

  private followToken(): void {
    if (this.token.get()) {
      this.queue.release('access')
      this.poller.resume('access')
    } else {
      this.queue.hold('access')
      this.poller.pause('access')
    }
    for (const item of this.items.values()) if (item.status === 'queued') this.changed(item)
  }
}
