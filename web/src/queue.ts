// A queue with a fixed number of slots. It decides which item starts; the caller defines what starting means.

export class Queue<T> {
  private readonly waiting = new Set<T>()
  private readonly first = new Set<T>()
  private readonly running = new Set<T>()
  private readonly holds = new Set<string>()

  constructor(
    private readonly slots: number,
    private readonly begin: (item: T) => void,
  ) {}

  /** Adds an item; `ahead` puts it before all waiting items (a resumed upload). */
  push(item: T, opts: { ahead?: boolean } = {}): void {
    if (this.running.has(item)) return
    if (opts.ahead) {
      this.waiting.delete(item)
      this.first.add(item)
    } else if (!this.first.has(item)) {
      this.waiting.add(item)
    }
    this.fill()
  }

  /** Removes an item, waiting or running, and gives its slot to the next. */
  remove(item: T): void {
    this.first.delete(item)
    this.waiting.delete(item)
    this.running.delete(item)
    this.fill()
  }

  /** No item starts while a reason holds; running items continue. */
  hold(reason: string): void {
    this.holds.add(reason)
  }

  release(reason: string): void {
    this.holds.delete(reason)
    this.fill()
  }

  get held(): boolean {
    return this.holds.size > 0
  }

  get active(): readonly T[] {
    return [...this.running]
  }

  private fill(): void {
    while (!this.held && this.running.size < this.slots) {
      const next = this.first.values().next()
      const pick = next.done ? this.waiting.values().next() : next
      if (pick.done) return
      this.first.delete(pick.value)
      this.waiting.delete(pick.value)
      // Before begin, which may call remove at once.
      this.running.add(pick.value)
      this.begin(pick.value)
    }
  }
}
