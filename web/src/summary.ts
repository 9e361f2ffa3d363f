// The card at the top: how many files are safe, the speed, the time left, and errors.

import { need } from './dom'
import * as format from './format'
import { locale, t } from './i18n'
import { totals, type Totals } from './item'
import { secondsLeft } from './speed'
import type { Uploads } from './uploads'

export class Summary {
  private readonly bar: HTMLProgressElement
  private readonly headline: HTMLElement
  private readonly numbers: HTMLElement
  private readonly verdict: HTMLElement
  private readonly trouble: HTMLElement
  private readonly failed: HTMLElement
  private readonly buttons: Record<'pause' | 'resume' | 'retry', HTMLButtonElement>
  private said = ''

  /** say announces a change to screen readers. */
  constructor(
    private readonly card: HTMLElement,
    private readonly uploads: Uploads,
    private readonly say: (text: string) => void,
  ) {
    this.bar = need(card, 'progress')
    this.headline = need(card, '.headline')
    this.numbers = need(card, '.numbers')
    this.verdict = need(card, '.verdict')
    this.trouble = need(card, '.trouble')
    this.failed = need(card, '.failed')
    this.buttons = {
      pause: need(card, '[data-action=pause-all]'),
      resume: need(card, '[data-action=resume-all]'),
      retry: need(card, '[data-action=retry-all]'),
    }
    this.bar.setAttribute('aria-label', t('progress'))
    this.buttons.pause.addEventListener('click', () => uploads.pauseAll())
    this.buttons.resume.addEventListener('click', () => uploads.resumeAll())
    this.buttons.retry.addEventListener('click', () => uploads.retryAll())
  }

  update(): void {
    const sum = totals(this.uploads.items.values())
    this.card.hidden = sum.count === 0
    if (sum.count === 0) return
    this.headline.textContent = t('safeCount', { done: sum.safe, all: sum.count })
    this.numbers.textContent = this.numbersText(sum)
    this.bar.value = sum.allBytes > 0 ? format.percent(sum.sentBytes, sum.allBytes) : 100
    this.bar.hidden = sum.sending === 0
    this.trouble.hidden = sum.failed === 0
    this.failed.textContent = t('failedCount', { n: sum.failed })
    this.buttons.pause.hidden = sum.pausable === 0
    this.buttons.resume.hidden = sum.resumable === 0
    this.buttons.retry.hidden = sum.retryable === 0
    const verdict = this.verdictText(sum)
    this.verdict.hidden = verdict === ''
    this.verdict.textContent = verdict
    this.card.dataset['state'] = sum.safe === sum.count ? 'safe' : sum.failed > 0 ? 'trouble' : 'busy'
    this.announce([verdict, sum.failed > 0 ? t('failedCount', { n: sum.failed }) : ''].filter(Boolean).join(' '))
  }

  private numbersText(sum: Totals): string {
    if (sum.sending === 0) return format.bytes(sum.sentBytes, locale)
    const speed = sum.moving > 0 ? this.uploads.speed.rate(performance.now()) : 0
    const left = secondsLeft(sum.allBytes - sum.sentBytes, speed)
    return [
      t('bytesCount', { sent: format.bytes(sum.sentBytes, locale), all: format.bytes(sum.allBytes, locale) }),
      format.rate(speed, locale),
      left ? t('left', { time: format.duration(left) }) : '',
    ]
      .filter(Boolean)
      .join(' · ')
  }

  private verdictText(sum: Totals): string {
    if (sum.sending > 0) return ''
    if (sum.checking > 0) return t('checking')
    if (sum.failed === 0) return t(sum.doubtful > 0 ? 'checkFirst' : 'allSafe')
    return sum.safe > 0 ? t('restSafe') : ''
  }

  private announce(text: string): void {
    if (text === this.said) return
    this.said = text
    if (text) this.say(text)
  }
}
