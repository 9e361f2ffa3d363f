import { expect, it } from 'vitest'
import { problemDetail, thumbnailOf } from './api'
import { pickLanguage } from './i18n'
import { applyState, canRetry, newItem, totals, type Item, type Status } from './item'
import { idOf } from './sender'
import { state } from './state.fixture'

function item(status: Status, size = 100, sent = 0): Item {
  const made = newItem(1, new File([new Uint8Array(size)], 'a.jpg'), '', 'fp')
  return Object.assign(made, { status, sent })
}

it('totals leaves cancelled out, and does not wait for failed bytes', () => {
  const sum = totals([
    item('completed', 100, 100),
    item('uploading', 100, 40),
    item('queued'),
    item('paused', 100, 10),
    item('processing', 100, 100),
    item('failed', 100, 70),
    item('cancelled', 100, 70),
  ])
  expect(sum).toMatchObject({ count: 6, safe: 1, failed: 1, sending: 3, checking: 1, pausable: 2, resumable: 1 })
  expect(sum).toMatchObject({ sentBytes: 250, allBytes: 500 })
})

it('counts what is stored but should be looked at before it is deleted', () => {
  const items = [item('uploaded'), item('uploaded'), item('uploaded'), item('uploaded')]
  const states = [state({}), state({ no_thumbnail: 'unreadable' }), state({ partial: true }), state({ no_thumbnail: 'protected' })]
  items.forEach((it, i) => applyState(it, states[i]!))
  expect(totals(items)).toMatchObject({ count: 4, safe: 4, doubtful: 2, failed: 0 })
})

it('takes the thumbnail of size 160 over', () => {
  const it = item('uploaded')
  const link = { width: 160, height: 120, bytes: 1, type: 'image/webp' }
  applyState(it, state({ thumbnails: [{ size: 480, url: 'big', ...link }, { size: 160, url: 'small', ...link }] }))
  expect(it.status).toBe('completed')
  expect(it.state && thumbnailOf(it.state)?.url).toBe('small')
})

it('shows what the server refused as failed, with no retry', () => {
  const it = item('processing')
  applyState(it, state({ status: 'failed', failure: { reason: 'infected', detail: 'Eicar' } }))
  expect(it).toMatchObject({ status: 'failed', failure: { reason: 'infected', detail: 'Eicar' } })
  expect(canRetry(it)).toBe(false)
  applyState(it, state({ status: 'expired' }))
  expect(it).toMatchObject({ status: 'failed', failure: { reason: 'expired' } })
})

it('offers a retry for what could not be sent', () => {
  const it = item('failed')
  it.failure = { kind: 'refused', status: 413, detail: '' }
  expect(canRetry(it)).toBe(true)
})

it('reads the id out of an upload URL', () => {
  expect(idOf('http://x/api/uploads/0197-a')).toBe('0197-a')
  expect(idOf('/api/uploads/0197-a/?x=1')).toBe('0197-a')
})

it('reads the sentence out of problem+json, and survives anything else', () => {
  expect(problemDetail('{"title":"Too large","detail":"Send less."}')).toBe('Send less.')
  expect(problemDetail('{"title":"Too large"}')).toBe('Too large')
  for (const body of ['', 'null', '<html>', '[]', '{"detail":5}']) expect(problemDetail(body)).toBe('')
})

it('speaks Spanish by default', () => {
  for (const l of [undefined, '', 'es', 'es-MX', 'ES-co']) expect(pickLanguage(l)).toBe('es')
  for (const l of ['en', 'en-US', 'pt-BR', 'est']) expect(pickLanguage(l)).toBe('en')
})
