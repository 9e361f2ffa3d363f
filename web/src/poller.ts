// Polls the state of many uploads with few requests in flight, and each upload less often the longer it waits.

const firstMs = 500
const lastMs = 3000
const troubleMs = 15000
const inFlightLimit = 4

export interface Poll {
  /** Resolves to true when the upload needs no more polling. After a rejection it is polled again later. */
  ask(id: string): Promise<boolean>
}

export class Poller {
  private readonly entries = new Map<string, { at: number; delay: number; busy: boolean }>()
  private inFlight = 0
  private timer: ReturnType<typeof setTimeout> | undefined
  private readonly stops = new Set<string>()

  /** changed is called when the number of polled uploads may have changed. */
  constructor(
    private readonly poll: Poll,
    private readonly changed: () => void = () => undefined,
  ) {}

  watch(id: string): void {
    if (this.entries.has(id)) return
    this.entries.set(id, { at: Date.now() + firstMs, delay: firstMs, busy: false })
    this.schedule()
    this.changed()
  }

  unwatch(id: string): void {
    if (this.entries.delete(id)) this.changed()
  }

  get watching(): number {
    return this.entries.size
  }

  /** Polls nothing while any reason stands (a hidden page, no access code). */
  pause(reason: string): void {
    this.stops.add(reason)
    clearTimeout(this.timer)
  }

  /** Polls all uploads at once, for a person who comes back to the page. */
  resume(reason: string): void {
    this.stops.delete(reason)
    const now = Date.now()
    for (const e of this.entries.values()) {
      e.at = now
      e.delay = firstMs
    }
    this.schedule()
  }

  private schedule(): void {
    clearTimeout(this.timer)
    if (this.stops.size > 0 || this.inFlight >= inFlightLimit) return
    let next = Infinity
    for (const e of this.entries.values()) if (!e.busy && e.at < next) next = e.at
    if (next === Infinity) return
    this.timer = setTimeout(() => this.run(), Math.max(0, next - Date.now()))
  }

  private run(): void {
    const now = Date.now()
    const due = [...this.entries]
      .filter(([, e]) => !e.busy && e.at <= now)
      .sort(([, a], [, b]) => a.at - b.at)
      .slice(0, inFlightLimit - this.inFlight)
    for (const [id] of due) void this.one(id)
    this.schedule()
  }

  private async one(id: string): Promise<void> {
    const entry = this.entries.get(id)
    if (!entry) return
    entry.busy = true
    this.inFlight++
    try {
      if (await this.poll.ask(id)) this.unwatch(id)
      entry.delay = Math.min(lastMs, entry.delay * 1.6)
    } catch {
      entry.delay = Math.min(troubleMs, Math.max(lastMs, entry.delay * 2))
    } finally {
      entry.busy = false
      entry.at = Date.now() + entry.delay
      this.inFlight--
      this.schedule()
    }
  }
}
