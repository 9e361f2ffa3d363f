// The two small forms: the access code, and the project.

import { t } from './i18n'
import { need } from './dom'
import type { Token } from './token'

/** Shows the form while there is no access code, and takes one. */
export function accessForm(form: HTMLFormElement, token: Token): void {
  const input = need<HTMLInputElement>(form, 'input')
  const help = need<HTMLElement>(form, '.help')
  let had = token.get() !== null
  const follow = (value: string | null): void => {
    if (value === null && had) {
      help.textContent = t('accessRefused')
      form.classList.add('refused')
    }
    had = value !== null
    form.hidden = had
    if (!had) input.value = ''
  }
  form.addEventListener('submit', (e) => {
    e.preventDefault()
    // Codes are pasted from chats, often with their line break, or as the whole link.
    const text = input.value.trim()
    const code = /#token=([^&\s]+)/.exec(text)?.[1]
    const value = code ? decodeURIComponent(code) : text
    if (value) token.set(value)
    else input.focus()
  })
  token.onChange(follow)
  follow(token.get())
}

const projectKey = 'tramo:project'
const slug = /^[A-Za-z0-9._-]{1,64}$/

/** Returns a reader of the project: a valid slug, '' for none, or null when what is typed is not valid. */
export function projectInput(input: HTMLInputElement): () => string | null {
  try {
    input.value = localStorage.getItem(projectKey) ?? ''
  } catch {
    // Storage is forbidden: nothing is remembered.
  }
  const read = (): string | null => {
    const value = input.value.trim()
    return value === '' || slug.test(value) ? value : null
  }
  input.addEventListener('input', () => {
    const value = read()
    input.setAttribute('aria-invalid', String(value === null))
    if (value === null) return
    try {
      localStorage.setItem(projectKey, value)
    } catch {
      // As above.
    }
  })
  return read
}
