import { expect, it } from 'vitest'
import { Queue } from './queue'

function queue(slots = 2) {
  const begun: string[] = []
  const q = new Queue<string>(slots, (item) => begun.push(item))
  return { q, begun }
}

it('begins as many as it has slots, in order', () => {
  const { q, begun } = queue()
  for (const item of 'abcd') q.push(item)
  expect(begun).toEqual(['a', 'b'])
  q.remove('a')
  expect(begun).toEqual(['a', 'b', 'c'])
  expect(q.active).toEqual(['b', 'c'])
})

it('forgets what is removed while it waits', () => {
  const { q, begun } = queue(1)
  for (const item of 'abc') q.push(item)
  q.remove('b')
  q.remove('a')
  expect(begun).toEqual(['a', 'c'])
})

it('begins what goes ahead before the rest, in the order it came', () => {
  const { q, begun } = queue(1)
  for (const item of 'abc') q.push(item)
  q.push('x', { ahead: true })
  q.push('c', { ahead: true })
  for (const item of 'axcb') q.remove(item)
  expect(begun).toEqual(['a', 'x', 'c', 'b'])
})

it('never begins an item twice', () => {
  const { q, begun } = queue(3)
  q.push('a')
  q.push('a', { ahead: true })
  q.push('a')
  expect(begun).toEqual(['a'])
})

it('begins nothing while any reason holds', () => {
  const { q, begun } = queue()
  q.hold('offline')
  q.hold('access')
  q.push('a')
  q.release('offline')
  expect(begun).toEqual([])
  q.release('access')
  expect(begun).toEqual(['a'])
})

it('survives an item that ends while it begins', () => {
  const ended: string[] = []
  const q: Queue<string> = new Queue(1, (item) => {
    ended.push(item)
    q.remove(item)
  })
  for (const item of 'abc') q.push(item)
  expect(ended).toEqual(['a', 'b', 'c'])
  expect(q.active).toEqual([])
})
