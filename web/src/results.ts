// The results of processing in the row of a file: its thumbnail and notes.

import type { UploadState } from './api'
import { need, show, write } from './dom'
import { Thumbnail } from './thumbnail'
import { aboutText, noteText } from './words'

export class Results {
  private readonly thumbnail: Thumbnail
  private readonly about: HTMLElement
  private readonly note: HTMLElement

  constructor(row: HTMLElement, type: string, name: string, testid: string, stale: () => void) {
    this.thumbnail = new Thumbnail(need(row, '.thumbnail'), type, name, testid, stale)
    this.about = need(row, '.about')
    this.note = need(row, '.note')
  }

  show(state: UploadState): void {
    this.thumbnail.show(state)
    say(this.about, aboutText(state))
    say(this.note, noteText(state))
  }
}

function say(el: HTMLElement, text: string): void {
  write(el, text)
  show(el, text !== '')
}
