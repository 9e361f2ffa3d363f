// The square at the start of a row: an icon, and the thumbnail over it once there is one.

import { iconFor } from './words'

export class Picture {
  private url: string | null = null
  private img: HTMLImageElement | null = null
  private asked = false

  /** stale is called once when the picture does not load: its link may have expired. */
  constructor(
    private readonly box: HTMLElement,
    type: string,
    name: string,
    private readonly testid: string,
    private readonly stale: () => void,
  ) {
    box.querySelector('use')?.setAttribute('href', `#i-${iconFor(type, name)}`)
  }

  show(url: string | null): void {
    if (url === this.url) return
    this.url = url
    if (!url) return
    const img = this.img ?? this.make()
    img.src = url
  }

  private make(): HTMLImageElement {
    const img = document.createElement('img')
    // The name stands beside it.
    img.alt = ''
    img.loading = 'lazy'
    img.decoding = 'async'
    img.dataset['testid'] = this.testid
    img.addEventListener('error', () => {
      img.remove()
      this.img = null
      this.url = null
      if (this.asked) return
      this.asked = true
      this.stale()
    })
    this.box.append(img)
    this.img = img
    return img
  }
}
