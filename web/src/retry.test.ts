import { expect, it } from 'vitest'
import { classify, retryDelays } from './retry'

it.each([
  [0, 'transient'],
  [400, 'refused'],
  [401, 'access'],
  [403, 'refused'],
  [404, 'refused'],
  [409, 'transient'],
  [410, 'refused'],
  [413, 'refused'],
  [423, 'transient'],
  [429, 'transient'],
  [500, 'transient'],
  [503, 'transient'],
])('%d is %s', (status, trouble) => expect(classify(status)).toBe(trouble))

it('retries at once first, and for minutes in all', () => {
  expect(retryDelays[0]).toBe(0)
  expect(retryDelays.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThan(5 * 60_000)
})
