// Identities that a chosen file keeps across retries and page reloads.

/** A random UUID v4. crypto.randomUUID exists in secure contexts only; sites are often plain http. */
export function newId(): string {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID()
  const b = crypto.getRandomValues(new Uint8Array(16))
  b[6] = (b[6]! & 0x0f) | 0x40
  b[8] = (b[8]! & 0x3f) | 0x80
  const hex = Array.from(b, (x) => x.toString(16).padStart(2, '0')).join('')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

/** Names one file chosen for one project. The content is not read: 2,000 photos are too many. */
export function fingerprint(file: Pick<File, 'name' | 'type' | 'size' | 'lastModified'>, project: string): string {
  return ['tramo', file.name, file.type, file.size, file.lastModified, project].join('|')
}

/**
 * Keeps the client id of each upload that has begun, so that a creation whose answer was lost, even
 * to a closed page, is repeated under the same id and the server finds the upload it already has.
 */
export class ClientIds {
  private static readonly prefix = 'tramo:client:'
  private readonly memory = new Map<string, string>()

  constructor(private readonly storage: Storage | null) {}

  /** The id for a fingerprint; made and stored the first time. */
  get(fp: string): string {
    const known = this.memory.get(fp) ?? this.read(fp)
    return known ?? this.renew(fp)
  }

  /** Replaces the id, for when the upload it named is gone. */
  renew(fp: string): string {
    const id = newId()
    this.memory.set(fp, id)
    try {
      this.storage?.setItem(ClientIds.prefix + fp, id)
    } catch {
      // Storage is full or forbidden: the id then lives as long as the page.
    }
    return id
  }

  forget(fp: string): void {
    this.memory.delete(fp)
    try {
      this.storage?.removeItem(ClientIds.prefix + fp)
    } catch {
      // As in renew.
    }
  }

  private read(fp: string): string | null {
    try {
      return this.storage?.getItem(ClientIds.prefix + fp) ?? null
    } catch {
      return null
    }
  }
}
