import { expect, it } from 'vitest'
import { secondsLeft, Speed } from './speed'

it('is bytes a second over the window', () => {
  const speed = new Speed()
  for (let at = 0; at < 4000; at += 500) speed.add(500, at)
  expect(speed.rate(4000)).toBe(1000)
})

it('does not explode on a first burst', () => {
  const speed = new Speed()
  speed.add(1_000_000, 0)
  expect(speed.rate(1)).toBe(1_000_000)
})

it('falls to 0 when nothing moves', () => {
  const speed = new Speed()
  speed.add(1000, 0)
  expect(speed.rate(7000)).toBeGreaterThan(0)
  expect(speed.rate(9000)).toBe(0)
})

it('ignores an offset that went back', () => {
  const speed = new Speed()
  speed.add(-5000, 0)
  expect(speed.rate(100)).toBe(0)
})

it('secondsLeft says nothing rather than infinity', () => {
  expect(secondsLeft(1000, 100)).toBe(10)
  expect(secondsLeft(1000, 0)).toBeNull()
  expect(secondsLeft(0, 0)).toBe(0)
})
