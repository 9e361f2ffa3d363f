// Speed over a sliding window. Clocks are passed in, in milliseconds.

const windowMs = 8000
// Browsers report progress in bursts; over a shorter span the speed means nothing.
const minSpanMs = 1000

export class Speed {
  private samples: { at: number; bytes: number }[] = []

  /** Records bytes sent just now. Going back after a resume (bytes < 0) is not speed, so ignored. */
  add(bytes: number, now: number): void {
    if (bytes <= 0) return
    const last = this.samples[this.samples.length - 1]
    // Merged, so that a fast link does not grow the window to thousands of samples.
    if (last && now - last.at < 100) last.bytes += bytes
    else this.samples.push({ at: now, bytes })
    this.drop(now)
  }

  /** Bytes a second over the window; 0 when nothing moved in it. */
  rate(now: number): number {
    this.drop(now)
    const first = this.samples[0]
    if (!first) return 0
    const total = this.samples.reduce((sum, s) => sum + s.bytes, 0)
    return total / (Math.max(minSpanMs, now - first.at) / 1000)
  }

  reset(): void {
    this.samples = []
  }

  private drop(now: number): void {
    while (this.samples[0] && now - this.samples[0].at > windowMs) this.samples.shift()
  }
}

/** Seconds left at a speed, or null when there is no reliable estimate. */
export function secondsLeft(bytesLeft: number, bytesPerSecond: number): number | null {
  if (bytesLeft <= 0) return 0
  if (bytesPerSecond < 1) return null
  return bytesLeft / bytesPerSecond
}
