import { expect, it } from 'vitest'
import { cover, pixelsOf } from './placeholder'

// Of https://evanw.github.io/thumbhash: a sunset over a field.
const sunset = '1QcSHQRnh493V4dIh4eXh1h4kJUI'

it('decodes a placeholder', () => {
  const pixels = pixelsOf(sunset)
  expect(pixels).toMatchObject({ w: 23, h: 32 })
  expect(pixels?.rgba).toHaveLength(23 * 32 * 4)
  expect(new Set(pixels?.rgba.filter((_, i) => i % 4 === 3))).toEqual(new Set([255]))
  expect(new Set(pixels?.rgba).size).toBeGreaterThan(50)
})

it('has no pixels of what is no placeholder', () => {
  for (const bad of [null, '', '!', 'ñ', 'AAAA', '1QcS=HQR']) expect(pixelsOf(bad)).toBeNull()
})

it('survives one that is cut off', () => {
  for (let n = 5; n < 21; n++) expect(pixelsOf(btoa(atob(sunset).slice(0, n)))?.rgba).toHaveLength(23 * 32 * 4)
})

it('lies where the thumbnail will', () => {
  expect(cover({ width: 120, height: 160 })).toEqual({ width: 100, height: (100 * 160) / 120, left: 0, top: (100 - (100 * 160) / 120) / 2 })
  expect(cover({ width: 160, height: 40 })).toEqual({ width: 400, height: 100, left: -150, top: 0 })
  expect(cover({ width: 7, height: 7 })).toEqual({ width: 100, height: 100, left: 0, top: 0 })
})
