// Numbers as people read them. Sizes are decimal (1 MB = 1,000,000 bytes), as phones show them.
// A number and its unit are held together by a no-break space.

const units = ['B', 'kB', 'MB', 'GB', 'TB'] as const

export function bytes(n: number, locale: string): string {
  let value = n
  let unit = 0
  // 999.95 would round to "1000 kB".
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1
  const number = new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(value)
  return `${number}\u00a0${units[unit]}`
}

/** bytesPerSecond as text, or '' when there is nothing worth showing. */
export function rate(bytesPerSecond: number, locale: string): string {
  return bytesPerSecond >= 1 ? `${bytes(Math.round(bytesPerSecond), locale)}/s` : ''
}

/** Whole percent, rounded down: 100 only when everything was sent. */
export function percent(part: number, whole: number): number {
  if (whole <= 0) return 0
  return Math.max(0, Math.min(100, Math.floor((part / whole) * 100)))
}

/** A rough duration with one or two units; the precision of an estimate, not of a clock. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.max(1, Math.ceil(seconds))}\u00a0s`
  const minutes = Math.ceil(seconds / 60)
  if (minutes < 60) return `${minutes}\u00a0min`
  const hours = Math.floor(minutes / 60)
  const rest = minutes % 60
  return rest === 0 ? `${hours}\u00a0h` : `${hours}\u00a0h\u00a0${rest}\u00a0min`
}

/** A file name with the characters visible that change the direction of writing, as the server shows names. */
export function shownName(name: string): string {
  return name.replace(
    /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}]`,
  )
}
