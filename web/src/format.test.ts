import { expect, it } from 'vitest'
import * as format from './format'

const plain = (text: string) => text.replaceAll('\u00a0', ' ')

it.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1 kB'],
  [1540, '1.5 kB'],
  [999_949, '1,000 kB'],
  [999_950, '1 MB'],
  [3_250_000, '3.3 MB'],
  [123_456_789, '123 MB'],
  [2e15, '2,000 TB'],
])('bytes(%d) is %s', (n, text) => {
  expect(plain(format.bytes(n, 'en'))).toBe(text)
})

it('bytes follows the locale', () => expect(plain(format.bytes(1_500_000, 'es'))).toBe('1,5 MB'))

it.each([
  [0, ''],
  [0.4, ''],
  [1200, '1.2 kB/s'],
])('rate(%d) is "%s"', (n, text) => expect(plain(format.rate(n, 'en'))).toBe(text))

it.each([
  [0, 0, 0],
  [0, 10, 0],
  [999, 1000, 99],
  [1000, 1000, 100],
  [1001, 1000, 100],
])('percent(%d, %d) is %d', (part, whole, n) => expect(format.percent(part, whole)).toBe(n))

it.each([
  [0.2, '1 s'],
  [59, '59 s'],
  [61, '2 min'],
  [3600, '1 h'],
  [5400, '1 h 30 min'],
])('duration(%d) is %s', (s, text) => expect(plain(format.duration(s))).toBe(text))

it('shows characters that change the direction of writing', () => {
  expect(format.shownName('foto\u202egpj.exe')).toBe('foto[U+202E]gpj.exe')
  expect(format.shownName('\u2066día\u2069 ñ\u061c.pdf')).toBe('[U+2066]día[U+2069] ñ[U+061C].pdf')
})
