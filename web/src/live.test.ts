import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { Live, type Source } from './live'

class Stream implements Source {
  readonly listeners = new Map<string, (e: MessageEvent<string>) => void>()
  onerror: ((e: Event) => void) | null = null
  closed = false
  constructor(readonly url: string) {}
  addEventListener(name: string, listener: (e: MessageEvent<string>) => void): void {
    this.listeners.set(name, listener)
  }
  close(): void {
    this.closed = true
  }
  tell(name: string, data: unknown, lastEventId = ''): void {
    this.listeners.get(name)?.({ data: JSON.stringify(data), lastEventId } as MessageEvent<string>)
  }
  fail(): void {
    this.onerror?.({} as Event)
  }
}

function setUp() {
  const streams: Stream[] = []
  const told: string[] = []
  const states: boolean[] = []
  const page = { wanted: true, tickets: 0, refuse: false }
  const live = new Live({
    ticket: () => (page.refuse ? Promise.reject(new Error('offline')) : Promise.resolve(`t${++page.tickets}`)),
    open: (url) => {
      const s = new Stream(url)
      streams.push(s)
      return s
    },
    told: (s) => told.push(`${s.id} ${s.status}`),
    changed: (on) => states.push(on),
    wanted: () => page.wanted,
  })
  return { live, streams, told, states, page }
}

const settle = () => vi.advanceTimersByTimeAsync(0)

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

test('opens one stream with a ticket, and is live once all is told', async () => {
  const { live, streams, told, states } = setUp()
  live.update()
  live.update()
  await settle()
  expect(streams.map((s) => s.url)).toEqual(['/api/events?ticket=t1&mine=true'])
  streams[0]!.tell('upload', { id: 'a', status: 'processing' })
  expect(states).toEqual([])
  streams[0]!.tell('ready', { complete: true }, '7')
  expect(states).toEqual([true])
  expect(told).toEqual(['a processing'])
})

test('comes back with a fresh ticket and the last id, and is not live meanwhile', async () => {
  const { live, streams, states } = setUp()
  live.update()
  await settle()
  streams[0]!.tell('ready', {}, '7')
  streams[0]!.tell('upload', { id: 'a', status: 'completed' }, '9')
  streams[0]!.fail()
  expect(states).toEqual([true, false])
  expect(streams[0]!.closed).toBe(true)
  await vi.advanceTimersByTimeAsync(1000)
  expect(streams[1]!.url).toBe('/api/events?ticket=t2&mine=true&last_event_id=9')
})

test('waits longer and longer while no stream comes about', async () => {
  const { live, page } = setUp()
  page.refuse = true
  const ticket = vi.spyOn(live as unknown as { open(): Promise<void> }, 'open')
  live.update()
  await vi.advanceTimersByTimeAsync(1000 + 2000 + 4000)
  expect(ticket).toHaveBeenCalledTimes(4)
  await vi.advanceTimersByTimeAsync(7000)
  expect(ticket).toHaveBeenCalledTimes(4)
})

test('ends when the server says so, and what an old stream says is not heard', async () => {
  const { live, streams, told, states } = setUp()
  live.update()
  await settle()
  streams[0]!.tell('ready', {})
  streams[0]!.tell('end', { reason: 'shutdown' })
  streams[0]!.tell('upload', { id: 'a', status: 'completed' })
  expect(states).toEqual([true, false])
  expect(told).toEqual([])
})

test('lingers when nothing is waited for, and then ends', async () => {
  const { live, streams, states, page } = setUp()
  live.update()
  await settle()
  streams[0]!.tell('ready', {})
  page.wanted = false
  live.update()
  await vi.advanceTimersByTimeAsync(29_000)
  expect(streams[0]!.closed).toBe(false)
  page.wanted = true
  live.update()
  streams[0]!.tell('upload', { id: 'a', status: 'completed' })
  page.wanted = false
  live.update()
  await vi.advanceTimersByTimeAsync(29_000)
  expect(streams[0]!.closed).toBe(false)
  await vi.advanceTimersByTimeAsync(1000)
  expect(streams[0]!.closed).toBe(true)
  expect(states).toEqual([true, false])
  expect(streams).toHaveLength(1)
})

test('does not believe in a stream that never says anything', async () => {
  const { live, streams } = setUp()
  live.update()
  await settle()
  await vi.advanceTimersByTimeAsync(41_000)
  expect(streams[0]!.closed).toBe(true)
  expect(streams).toHaveLength(2)
})
