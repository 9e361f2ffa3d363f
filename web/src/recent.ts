// The person's last uploads, from before this visit or from another device.

import { ApiError, isSettled, type Api, type UploadState } from './api'
import { need } from './dom'
import * as format from './format'
import { locale, t } from './i18n'
import { Poller } from './poller'
import { Results } from './results'
import type { Token } from './token'
import { serverStateText } from './words'

const shown = 20

export class Recent {
  private readonly poller: Poller
  private readonly rows = new Map<string, { el: HTMLElement; update: (state: UploadState) => void }>()

  constructor(
    private readonly section: HTMLElement,
    private readonly template: HTMLTemplateElement,
    private readonly api: Api,
    private readonly token: Token,
    /** True for an upload that this visit's own list shows. */
    private readonly listed: (id: string) => boolean,
    /** Called when the number of uploads to wait for may have changed. */
    waiting: () => void,
  ) {
    this.poller = new Poller({ ask: (id) => this.ask(id) }, waiting)
    token.onChange((value) => {
      if (value) void this.load()
    })
  }

  /** Shows the list. Without a network or an access code it stays as it is. */
  async load(): Promise<void> {
    const used = this.token.get()
    if (!used) return
    try {
      const page = await this.api.recent(shown)
      this.show(page.items.filter((s) => s.status !== 'cancelled' && !this.listed(s.id)).slice(0, shown))
      this.poller.resume('access')
    } catch (err) {
      if (err instanceof ApiError && err.status === 401) this.token.refuse(used)
    }
  }

  visible(visible: boolean): void {
    if (visible) this.poller.resume('hidden')
    else this.poller.pause('hidden')
  }

  get watching(): number {
    return this.poller.watching
  }

  /** While the event stream delivers changes, nothing is polled. */
  live(live: boolean): void {
    if (live) this.poller.pause('live')
    else this.poller.resume('live')
  }

  told(state: UploadState): void {
    this.rows.get(state.id)?.update(state)
    if (isSettled(state.status)) this.poller.unwatch(state.id)
  }

  /** Removes an upload that this visit's own list shows now. */
  drop(id: string): void {
    const row = this.rows.get(id)
    if (!row) return
    row.el.remove()
    this.rows.delete(id)
    this.poller.unwatch(id)
    this.section.hidden = this.rows.size === 0
  }

  private show(states: UploadState[]): void {
    const list = need(this.section, 'ul')
    for (const id of this.rows.keys()) this.poller.unwatch(id)
    this.rows.clear()
    list.replaceChildren(...states.map((s) => this.row(s)))
    this.section.hidden = states.length === 0
    for (const s of states) if (s.status === 'uploaded' || s.status === 'processing') this.poller.watch(s.id)
  }

  private row(first: UploadState): HTMLElement {
    const el = need<HTMLElement>(this.template.content.cloneNode(true) as DocumentFragment, 'li')
    el.dataset['testid'] = 'recent-upload'
    const name = first.filename ?? t('unnamed')
    el.dataset['name'] = name
    need<HTMLElement>(el, '.name').textContent = name
    need<HTMLElement>(el, '.detail').textContent = first.size === null ? '' : format.bytes(first.size, locale)
    for (const unused of el.querySelectorAll('progress, .actions')) unused.remove()
    const results = new Results(el, first.type ?? '', name, 'recent-thumbnail', () => {
      void this.ask(first.id).catch(() => undefined)
    })
    const update = (state: UploadState): void => {
      el.dataset['status'] = state.status
      need<HTMLElement>(el, '.state').textContent = serverStateText(state)
      results.show(state)
    }
    update(first)
    this.rows.set(first.id, { el, update })
    return el
  }

  private async ask(id: string): Promise<boolean> {
    const used = this.token.get()
    try {
      const state = await this.api.upload(id)
      this.rows.get(id)?.update(state)
      return isSettled(state.status)
    } catch (err) {
      if (!(err instanceof ApiError)) throw err
      if (err.status === 404) return true
      if (err.status === 401) {
        this.poller.pause('access')
        this.token.refuse(used)
      }
      throw err
    }
  }
}
