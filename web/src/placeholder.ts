// A placeholder for a thumbnail while it loads: a few colours that are part of the upload's state.

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

/** The pixels of a ThumbHash in Base64, at most 32 a side, or null if it is not valid. */
export function pixelsOf(placeholder: string | null): Pixels | null {
  if (!placeholder) return null
  let hash: Uint8Array
  try {
    hash = Uint8Array.from(atob(placeholder), (c) => c.charCodeAt(0))
  } catch {
    return null
  }
  // The header alone has five bytes; the decoder would read past the end.
  return hash.length < 5 ? null : thumbHashToRGBA(hash)
}

/** The position, in percent, of a thumbnail of these dimensions that covers a square, as with `object-fit: cover`. */
export function cover({ width, height }: Dimensions): { width: number; height: number; left: number; top: number } {
  const least = Math.min(width, height)
  const [w, h] = [(100 * width) / least, (100 * height) / least]
  return { width: w, height: h, left: (100 - w) / 2, top: (100 - h) / 2 }
}

/** A small canvas at the exact position of the thumbnail. A ThumbHash has only an approximate aspect ratio. */
export function canvasOf(pixels: Pixels, thumbnail: Dimensions): HTMLCanvasElement {
  const canvas = document.createElement('canvas')
  canvas.width = pixels.w
  canvas.height = pixels.h
  const image = new ImageData(new Uint8ClampedArray(pixels.rgba), pixels.w, pixels.h)
  canvas.getContext('2d')?.putImageData(image, 0, 0)
  for (const [side, percent] of Object.entries(cover(thumbnail))) canvas.style.setProperty(side, `${percent}%`)
  return canvas
}
