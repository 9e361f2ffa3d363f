// Wires the parts of the page together.

import { Api } from './api'
import { watchDrops, watchInput } from './choose'
import { need } from './dom'
import { accessForm, projectInput } from './forms'
import { t, translatePage } from './i18n'
import { ClientIds } from './ids'
import { totals } from './item'
import { Live } from './live'
import { Recent } from './recent'
import { Rows } from './rows'
import { askBeforeReplacing, showSession } from './session'
import './style.css'
import { Summary } from './summary'
import { Token } from './token'
import { Uploads } from './uploads'

translatePage(document)

const token = new Token()
const api = new Api(() => token.get())
const template = need<HTMLTemplateElement>(document, '#row')
const now = need<HTMLElement>(document, '#now')
const offline = need<HTMLElement>(document, '#offline')
const live = need<HTMLElement>(document, '#live')
const projectBox = need<HTMLInputElement>(document, '#project')

const say = (text: string): void => {
  live.textContent = text
}

const sending = (): number => totals(uploads.items.values()).sending
const waiting = (): void => events.update()
const uploads: Uploads = new Uploads(
  api,
  token,
  new ClientIds(storage()),
  (item) => {
    rows.touch(item)
    if (item.id) recent.drop(item.id)
  },
  waiting,
)
const summary = new Summary(need(document, '#summary'), uploads, say)
const rows: Rows = new Rows(
  need(now, 'ul'),
  template,
  () => uploads,
  () => token.get() !== null,
  () => {
    now.hidden = uploads.items.size === 0
    summary.update()
  },
)
const recent: Recent = new Recent(need(document, '#recent'), template, api, token, (id) => uploads.has(id), waiting)
const events: Live = new Live({
  ticket: () => api.ticket(),
  open: (url) => new EventSource(url),
  told: (state) => {
    uploads.told(state)
    recent.told(state)
  },
  changed: (live) => {
    uploads.live(live)
    recent.live(live)
  },
  wanted: () =>
    uploads.watching + recent.watching > 0 && token.get() !== null && document.visibilityState === 'visible',
})
token.onChange(() => {
  events.close()
  events.update()
})
const project = projectInput(projectBox)
accessForm(need(document, '#access'), token)
showSession(need(document, '#session'), api, token)
askBeforeReplacing(need(document, '#replace'), token, () => sending() > 0)

function chosen(files: File[]): void {
  const slug = project()
  if (slug === null) {
    projectBox.focus()
    say(t('projectHint'))
    return
  }
  const { added, already } = uploads.add(files, slug)
  const parts: string[] = []
  if (added > 0) parts.push(added === 1 ? t('addedOne') : t('added', { n: added }))
  if (already > 0) parts.push(already === 1 ? t('alreadyHereOne') : t('alreadyHere', { n: already }))
  say(parts.join('. '))
}

const files = need<HTMLInputElement>(document, '#files')
watchInput(files, chosen)
watchDrops(document, chosen)

function followNetwork(): void {
  offline.hidden = navigator.onLine
}
window.addEventListener('offline', () => {
  followNetwork()
  uploads.offline()
})
window.addEventListener('online', () => {
  followNetwork()
  uploads.online()
  say(t('backOnline'))
})
followNetwork()

document.addEventListener('visibilitychange', () => {
  const visible = document.visibilityState === 'visible'
  uploads.visible(visible)
  recent.visible(visible)
  if (!visible) events.close()
  events.update()
})

window.addEventListener('beforeunload', (e) => {
  if (sending() > 0) e.preventDefault()
})

// Speed and time left change without an event when nothing is sent.
setInterval(() => {
  if (document.visibilityState === 'visible') summary.update()
}, 1000)

void recent.load()

function storage(): Storage | null {
  try {
    return localStorage
  } catch {
    return null
  }
}
