// The rows of the list. Only changes are written, at most ten times a second.

import { need, show, write } from './dom'
import * as format from './format'
import { locale, t } from './i18n'
import { canRetry, type Item } from './item'
import { Results } from './results'
import type { Uploads } from './uploads'
import { stateText } from './words'

const flushMs = 100

type Action = 'pause' | 'resume' | 'cancel' | 'retry'
const actions: readonly Action[] = ['pause', 'resume', 'retry', 'cancel']

class Row {
  readonly el: HTMLElement
  private readonly bar: HTMLProgressElement
  private readonly state: HTMLElement
  private readonly detail: HTMLElement
  private readonly buttons: Record<Action, HTMLButtonElement>
  private readonly results: Results
  private cancelled = false

  constructor(template: HTMLTemplateElement, item: Item, stale: () => void) {
    this.el = need(template.content.cloneNode(true) as DocumentFragment, 'li')
    this.bar = need(this.el, 'progress')
    this.state = need(this.el, '.state')
    this.detail = need(this.el, '.detail')
    const name = format.shownName(item.file.name)
    this.el.dataset['name'] = name
    this.el.dataset['key'] = String(item.key)
    const title = need<HTMLElement>(this.el, '.name')
    title.textContent = name
    title.title = name
    this.bar.setAttribute('aria-label', t('fileProgress', { name }))
    this.buttons = Object.fromEntries(
      actions.map((a) => [a, need<HTMLButtonElement>(this.el, `[data-action=${a}]`)]),
    ) as Record<Action, HTMLButtonElement>
    for (const a of actions) {
      this.buttons[a].setAttribute('aria-label', t(a, { name }))
      this.buttons[a].title = t(a, { name })
    }
    this.results = new Results(this.el, item.file.type, name, 'thumbnail', stale)
  }

  update(item: Item, hasToken: boolean): void {
    if (this.el.dataset['status'] !== item.status) this.el.dataset['status'] = item.status
    write(this.state, stateText(item, hasToken))
    write(this.detail, this.detailText(item))
    const moving = item.status === 'uploading' || item.status === 'paused' || (item.status === 'queued' && item.sent > 0)
    if (this.bar.hidden === moving) this.bar.hidden = !moving
    const percent = format.percent(item.sent, item.file.size)
    if (moving && this.bar.value !== percent) this.bar.value = percent
    const waits = item.status === 'queued' || item.status === 'uploading'
    show(this.buttons.pause, waits)
    show(this.buttons.resume, item.status === 'paused')
    show(this.buttons.retry, canRetry(item))
    show(this.buttons.cancel, waits || item.status === 'paused')
    if (item.state) this.results.show(item.state)
    this.cancelled = item.status === 'cancelled'
  }

  /** Keeps the focus in the row when the pressed button disappears. */
  keepFocus(): void {
    const next = actions.map((a) => this.buttons[a]).find((b) => !b.hidden)
    if (next) next.focus()
    else if (this.cancelled) this.el.focus()
  }

  private detailText(item: Item): string {
    const size = format.bytes(item.file.size, locale)
    if (item.status !== 'uploading' && item.status !== 'paused') return size
    const speed = item.status === 'uploading' ? format.rate(item.speed.rate(performance.now()), locale) : ''
    return [`${format.percent(item.sent, item.file.size)}\u00a0%`, size, speed].filter(Boolean).join(' · ')
  }
}

export class Rows {
  private readonly rows = new Map<number, Row>()
  private readonly dirty = new Set<Item>()
  private timer: ReturnType<typeof setTimeout> | undefined

  constructor(
    private readonly list: HTMLElement,
    private readonly template: HTMLTemplateElement,
    private readonly uploads: () => Uploads,
    private readonly hasToken: () => boolean,
    private readonly flushed: () => void,
  ) {
    list.addEventListener('click', (e) => this.click(e))
  }

  touch(item: Item): void {
    this.dirty.add(item)
    this.timer ??= setTimeout(() => this.flush(), flushMs)
  }

  private flush(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    const fresh = document.createDocumentFragment()
    for (const item of this.dirty) {
      let row = this.rows.get(item.key)
      if (!row) {
        row = new Row(this.template, item, () => void this.uploads().refresh(item))
        this.rows.set(item.key, row)
        fresh.append(row.el)
      }
      row.update(item, this.hasToken())
    }
    this.dirty.clear()
    this.list.append(fresh)
    this.flushed()
  }

  private click(e: MouseEvent): void {
    const button = e.target instanceof Element ? e.target.closest<HTMLButtonElement>('button[data-action]') : null
    const key = Number(button?.closest<HTMLElement>('li')?.dataset['key'])
    const uploads = this.uploads()
    const item = uploads.items.get(key)
    if (!button || !item) return
    uploads[button.dataset['action'] as Action](item)
    this.flush()
    if (button.hidden) this.rows.get(key)?.keepFocus()
  }
}
