import { expect, it } from 'vitest'
import { problemDetail } from './api'
import { failureText } from './words'

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
