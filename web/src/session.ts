// Who is signed in, and the question whether a link may change that.

import { Api, ApiError, type Account } from './api'
import { need, show, write } from './dom'
import { t } from './i18n'
import type { Token } from './token'

/** Shows the company and the user of the access code. */
export function showSession(el: HTMLElement, api: Api, token: Token): void {
  const follow = async (): Promise<void> => {
    const used = token.get()
    show(el, false)
    if (!used) return
    try {
      const account = await api.account()
      if (token.get() !== used) return
      write(el, nameOf(account))
      show(el, true)
    } catch (err) {
      if (err instanceof ApiError && err.status === 401) token.refuse(used)
    }
  }
  token.onChange(() => void follow())
  window.addEventListener('online', () => {
    if (el.hidden) void follow()
  })
  void follow()
}

/**
 * A link with an access code may come from anyone. What is sent after it was opened would belong to whoever made it. So the
 * page shows whose code it is, and replaces the one in use only when the person says so.
 */
export function askBeforeReplacing(dialog: HTMLDialogElement, token: Token, busy: () => boolean): void {
  let offered: string | null = null
  const asked = async (link: string): Promise<void> => {
    offered = link
    const used = token.get()
    try {
      const there = await accountOf(link)
      const here = used ? await accountOf(used) : null
      if (offered !== link) return
      if (!there) {
        write(need(dialog, '.help'), '')
        fill(dialog, '', t('linkRefused'), false)
      } else if (here && here.id === there.id && here.user_id === there.user_id) {
        token.set(link) // a fresh code of the same person
        return
      } else {
        write(need(dialog, '.help'), busy() ? t('replaceStops') : '')
        fill(dialog, here ? t('sessionNow', { who: nameOf(here) }) : t('sessionNowUnknown'), t('sessionOffered', { who: nameOf(there) }), true)
      }
      if (!dialog.open) dialog.showModal()
    } catch {
      // No network: the link waits, and changes nothing.
      window.addEventListener('online', () => void asked(link), { once: true })
    }
  }
  need(dialog, '[data-action=replace]').addEventListener('click', () => {
    dialog.close()
    if (offered) token.replace(offered)
  })
  need(dialog, '[data-action=keep]').addEventListener('click', () => dialog.close())
  token.onOffer((link) => void asked(link))
}

function fill(dialog: HTMLElement, now: string, offered: string, replaceable: boolean): void {
  write(need(dialog, '.now'), now)
  write(need(dialog, '.offered'), offered)
  show(need(dialog, '[data-action=replace]'), replaceable)
}

/** Null for a code that the server refuses. */
function accountOf(token: string): Promise<Account | null> {
  return new Api(() => token).account().catch(unlessRefused)
}

function unlessRefused(err: unknown): null {
  if (err instanceof ApiError && err.status < 500 && err.status !== 429) return null
  throw err
}

function nameOf(account: Account): string {
  return `${account.user_id} · ${account.name}`
}
