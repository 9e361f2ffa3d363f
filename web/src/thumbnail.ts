// The square at the start of a row: an icon, over it the placeholder, and over that the thumbnail, once there is one.

import { thumbnailOf, type UploadState } from './api'
import { canvasOf, pixelsOf, type Dimensions } from './placeholder'
import { iconFor } from './words'

export class Thumbnail {
  private address: string | null = null
  private img: HTMLImageElement | null = null
  private placeholder: HTMLCanvasElement | null = null
  private asked = false

  /** stale is called once if the thumbnail does not load, because its link may have expired. */
  constructor(
    private readonly box: HTMLElement,
    type: string,
    name: string,
    private readonly testid: string,
    private readonly stale: () => void,
  ) {
    box.querySelector('use')?.setAttribute('href', `#i-${iconFor(type, name)}`)
  }

  show(state: UploadState): void {
    const thumbnail = thumbnailOf(state)
    // The server gives a new link to the same thumbnail every half hour. One that is loaded stays.
    const address = thumbnail?.url.split('?')[0]
    if (!thumbnail || address === this.address) return
    this.address = address ?? null
    if (!this.img) this.hold(state.placeholder, thumbnail)
    const img = this.img ?? this.make()
    img.width = thumbnail.width
    img.height = thumbnail.height
    img.classList.toggle('page', state.pages !== null)
    img.src = thumbnail.url
  }

  private hold(placeholder: string | null, thumbnail: Dimensions): void {
    const pixels = this.placeholder ? null : pixelsOf(placeholder)
    if (!pixels) return
    this.placeholder = canvasOf(pixels, thumbnail)
    this.placeholder.dataset['testid'] = 'placeholder'
    this.box.append(this.placeholder)
  }

  private make(): HTMLImageElement {
    const img = document.createElement('img')
    // The file name is next to it.
    img.alt = ''
    img.loading = 'lazy'
    img.decoding = 'async'
    img.dataset['testid'] = this.testid
    img.addEventListener('load', () => {
      // It would be visible behind a transparent thumbnail.
      this.placeholder?.remove()
      this.placeholder = null
    })
    img.addEventListener('error', () => {
      img.remove()
      this.img = null
      this.address = null
      if (this.asked) return
      this.asked = true
      this.stale()
    })
    this.box.append(img)
    this.img = img
    return img
  }
}
