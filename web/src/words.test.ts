import { expect, it } from 'vitest'
import { problemDetail } from './api'
import { state } from './state.fixture'
import { aboutText, failureText, noteText } from './words'

it('says in its own language why an upload failed', () => {
  expect(failureText({ kind: 'server', reason: 'infected', detail: 'A virus was found.' })).toMatch(/^Contiene un virus/)
})

it('falls back to the server for a reason that it does not know', () => {
  const reason = 'haunted' as 'infected'
  expect(failureText({ kind: 'server', reason, detail: 'It is haunted.' })).toBe('It is haunted.')
  expect(failureText({ kind: 'server', reason, detail: '' })).toBe('Error')
})

it('says in its own language why the server refused', () => {
  expect(problemDetail('{"type":"/problems/empty","detail":"The file is empty."}')).toMatch(/^El archivo está vacío/)
  expect(problemDetail('{"type":"/problems/new","detail":"Something new."}')).toBe('Something new.')
})

it('says that a thumbnail shows a part', () => {
  expect(noteText(state({ partial: true }))).toBe('La foto llegó dañada: se ve una parte.')
  expect(noteText(state({ partial: true, type: 'application/pdf' }))).toMatch(/^El archivo llegó dañado/)
  expect(noteText(state({}))).toBe('')
})

it('says why there is no thumbnail, and that the file is safe', () => {
  const words = new Map<string, number>()
  for (const reason of ['too_large', 'memory', 'cpu', 'time', 'output', 'unsupported', 'protected', 'tool_missing'] as const) {
    const text = noteText(state({ no_thumbnail: reason }))
    expect(text).toMatch(/^Sin imagen: .*\. El archivo está a salvo\.$/)
    words.set(text, 1)
  }
  expect(words.size).toBe(5)
  expect(noteText(state({ no_thumbnail: 'unreadable' }))).toBe(
    'Lo tenemos tal como lo enviaste, pero no se puede mostrar. Revísalo antes de borrarlo.',
  )
  expect(noteText(state({ no_thumbnail: 'haunted' as 'cpu' }))).toBe('Sin imagen. El archivo está a salvo.')
  expect(noteText(state({ no_thumbnail: 'cpu', status: 'failed' }))).toBe('')
})

it('tells what a document says of itself', () => {
  expect(aboutText(state({ pages: 12, title: ' Acta de obra ' }))).toBe('Acta de obra · 12 páginas')
  expect(aboutText(state({ pages: 1 }))).toBe('1 página')
  expect(aboutText(state({ title: '<b>Acta</b>' }))).toBe('<b>Acta</b>')
  expect(aboutText(state({}))).toBe('')
})
