import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Poller } from './poller'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('asks first after half a second, then backs off to three', async () => {
  const asked: number[] = []
  const start = Date.now()
  const poller = new Poller({ ask: async () => (asked.push(Date.now() - start), false) })
  poller.watch('a')
  await vi.advanceTimersByTimeAsync(20_000)
  const gaps = asked.map((at, i) => at - (asked[i - 1] ?? 0))
  expect(gaps[0]).toBe(500)
  expect(gaps[gaps.length - 1]).toBe(3000)
  expect(gaps).toEqual([...gaps].sort((a, b) => a - b))
})

it('stops at a settled state', async () => {
  let times = 0
  const poller = new Poller({ ask: async () => ++times === 3 })
  poller.watch('a')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(times).toBe(3)
  expect(poller.watching).toBe(0)
})

it('has at most four polls in flight for 2,000 uploads, and reaches them all', async () => {
  let inFlight = 0
  let most = 0
  const seen = new Set<string>()
  const poller = new Poller({
    ask: async (id) => {
      most = Math.max(most, ++inFlight)
      await new Promise((resolve) => setTimeout(resolve, 20))
      inFlight--
      seen.add(id)
      return true
    },
  })
  for (let i = 0; i < 2000; i++) poller.watch(String(i))
  await vi.advanceTimersByTimeAsync(30_000)
  expect(most).toBe(4)
  expect(seen.size).toBe(2000)
})

it('asks nothing while paused, and at once when it goes on', async () => {
  let times = 0
  const poller = new Poller({ ask: async () => (times++, false) })
  poller.pause('hidden')
  poller.watch('a')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(times).toBe(0)
  poller.resume('hidden')
  await vi.advanceTimersByTimeAsync(1)
  expect(times).toBe(1)
})

it('keeps asking after an error, but not often', async () => {
  let times = 0
  const poller = new Poller({
    ask: async () => {
      times++
      throw new Error('503')
    },
  })
  poller.watch('a')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(times).toBeGreaterThan(3)
  expect(times).toBeLessThan(10)
})
