// The access code: where it comes from, and what waits for it.

const key = 'tramo:token'

export class Token {
  private value: string | null
  private readonly listeners: ((token: string | null) => void)[] = []
  private offered: string | null = null
  private offerListener: ((token: string) => void) | undefined

  constructor() {
    this.value = read()
    this.follow()
    window.addEventListener('hashchange', () => this.follow())
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

  /** Receives the token of each link that is opened while another token is in use. The link changes nothing by itself. */
  onOffer(listener: (token: string) => void): void {
    this.offerListener = listener
    if (this.offered) listener(this.offered)
  }

  /** Begins the page anew with another token, so that no upload goes on in another person's name. */
  replace(token: string): void {
    write(token)
    if (read() === token) location.reload()
    else this.set(token)
  }

  /** Removes `#token=…` from the address, so that no history, bookmark or screenshot has it. */
  private follow(): void {
    const fragment = new URLSearchParams(location.hash.slice(1))
    const given = fragment.get('token')?.trim()
    if (fragment.has('token')) history.replaceState(history.state, '', location.pathname + location.search)
    if (!given || given === this.value) return
    if (this.value === null) {
      this.set(given)
      return
    }
    this.offered = given
    this.offerListener?.(given)
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
