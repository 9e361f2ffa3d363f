// The access code: where it comes from, and what waits for it.

const key = 'tramo:token'

export class Token {
  private value: string | null
  private readonly listeners: ((token: string | null) => void)[] = []

  /** Removes `#token=…` from the address, so that no history, bookmark or screenshot has it. */
  constructor() {
    const fragment = new URLSearchParams(location.hash.slice(1))
    const given = fragment.get('token')?.trim()
    if (fragment.has('token')) history.replaceState(history.state, '', location.pathname + location.search)
    this.value = given || read()
    if (given) write(given)
  }

  get(): string | null {
    return this.value
  }

  set(token: string): void {
    this.value = token
    write(token)
    this.tell()
  }

  /** The server refused `used`. A newer one that arrived meanwhile stays. */
  refuse(used: string | null): void {
    if (this.value !== used) return
    this.value = null
    write(null)
    this.tell()
  }

  onChange(listener: (token: string | null) => void): void {
    this.listeners.push(listener)
  }

  private tell(): void {
    for (const l of this.listeners) l(this.value)
  }
}

function read(): string | null {
  try {
    return sessionStorage.getItem(key)
  } catch {
    return null
  }
}

function write(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem(key)
    else sessionStorage.setItem(key, token)
  } catch {
    // Storage is forbidden: the code lives as long as the page.
  }
}
