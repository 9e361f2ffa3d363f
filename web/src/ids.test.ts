import { describe, expect, it, vi } from 'vitest'
import { ClientIds, fingerprint, newId } from './ids'

const v4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

class FakeStorage implements Storage {
  private readonly map = new Map<string, string>()
  get length() {
    return this.map.size
  }
  clear = () => this.map.clear()
  getItem = (k: string) => this.map.get(k) ?? null
  key = (i: number) => [...this.map.keys()][i] ?? null
  removeItem = (k: string) => void this.map.delete(k)
  setItem = (k: string, v: string) => void this.map.set(k, v)
}

describe('newId', () => {
  it('is a UUID v4', () => expect(newId()).toMatch(v4))

  it('is a UUID v4 without crypto.randomUUID, as on plain http', () => {
    const { getRandomValues } = crypto
    vi.stubGlobal('crypto', { getRandomValues: getRandomValues.bind(crypto) })
    try {
      const ids = new Set(Array.from({ length: 100 }, newId))
      expect(ids.size).toBe(100)
      for (const id of ids) expect(id).toMatch(v4)
    } finally {
      vi.unstubAllGlobals()
    }
  })
})

describe('ClientIds', () => {
  it('gives a file the same id after a reload', () => {
    const storage = new FakeStorage()
    const id = new ClientIds(storage).get('a')
    expect(new ClientIds(storage).get('a')).toBe(id)
    expect(new ClientIds(storage).get('b')).not.toBe(id)
  })

  it('gives a new id once the old upload is gone or done', () => {
    const storage = new FakeStorage()
    const ids = new ClientIds(storage)
    const first = ids.get('a')
    const second = ids.renew('a')
    expect(second).not.toBe(first)
    expect(ids.get('a')).toBe(second)
    ids.forget('a')
    expect(storage.length).toBe(0)
    expect(ids.get('a')).not.toBe(second)
  })

  it('works without storage, and with a full one', () => {
    const full = new FakeStorage()
    full.setItem = () => {
      throw new DOMException('full', 'QuotaExceededError')
    }
    for (const ids of [new ClientIds(null), new ClientIds(full)]) expect(ids.get('a')).toBe(ids.get('a'))
  })
})

it('fingerprint tells projects and versions of a file apart', () => {
  const file = { name: 'a.jpg', type: 'image/jpeg', size: 1, lastModified: 1 }
  const all = [fingerprint(file, ''), fingerprint(file, 'p'), fingerprint({ ...file, lastModified: 2 }, '')]
  expect(new Set(all).size).toBe(3)
})
