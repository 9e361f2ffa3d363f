// What stands in for a thumbnail while it loads: a handful of colours that come with the upload's state.

import { thumbHashToRGBA } from 'thumbhash'

export interface Pixels {
  w: number
  h: number
  rgba: Uint8Array
}

export interface Dimensions {
  width: number
  height: number
}

/** The pixels of a ThumbHash in Base64, at most 32 a side, or null if it is none. */
export function pixelsOf(placeholder: string | null): Pixels | null {
  if (!placeholder) return null
  let hash: Uint8Array
  try {
    hash = Uint8Array.from(atob(placeholder), (c) => c.charCodeAt(0))
  } catch {
    return null
  }
  // Its header alone has five; the decoder would read on behind its end.
  return hash.length < 5 ? null : thumbHashToRGBA(hash)
}

/** Where a thumbnail of these dimensions lies that covers a square, as `object-fit: cover` has it: in percent. */
export function cover({ width, height }: Dimensions): { width: number; height: number; left: number; top: number } {
  const least = Math.min(width, height)
  const [w, h] = [(100 * width) / least, (100 * height) / least]
  return { width: w, height: h, left: (100 - w) / 2, top: (100 - h) / 2 }
}

/** A small canvas that lies exactly where the thumbnail will. A ThumbHash knows the thumbnail's shape only roughly. */
export function canvasOf(pixels: Pixels, thumbnail: Dimensions): HTMLCanvasElement {
  const canvas = document.createElement('canvas')
  canvas.width = pixels.w
  canvas.height = pixels.h
  const image = new ImageData(new Uint8ClampedArray(pixels.rgba), pixels.w, pixels.h)
  canvas.getContext('2d')?.putImageData(image, 0, 0)
  for (const [side, percent] of Object.entries(cover(thumbnail))) canvas.style.setProperty(side, `${percent}%`)
  return canvas
}
