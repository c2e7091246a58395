import assert from 'node:assert/strict'
import test from 'node:test'
import { decode, depth, findPath, firstEndingAfter, frameAt, nameOf, path, pathKey, truncated } from '../src/model/flame.ts'

// total 100: a 60 (self 10: b 30, b's a 20 below; other 20), c 35 (self 35), 5 without a stack
const WIRE = {
  names: ['total', 'a', 'b', 'other', 'c'],
  levels: [
    { values: ['0', '100', '5', '0'] },
    { values: ['0', '60', '10', '1', '5', '35', '35', '4'] },
    { values: ['10', '30', '10', '2', '0', '20', '20', '3'] },
    { values: ['20', '20', '20', '1'] },
  ],
  total: '100',
  maxSelf: '35',
}

test('decode gives every frame its place, values and parent', () => {
  const flame = decode(WIRE)
  assert.equal(flame.count, 6)
  assert.equal(depth(flame), 4)
  assert.deepEqual([...flame.start], [0, 0, 65, 10, 40, 20])
  assert.deepEqual([...flame.total], [100, 60, 35, 30, 20, 20])
  assert.deepEqual([...flame.self], [5, 10, 35, 10, 20, 20])
  assert.deepEqual([...flame.parent], [-1, 0, 0, 1, 1, 3])
  assert.deepEqual([...flame.children], [2, 2, 0, 1, 0, 0])
  assert.deepEqual([...flame.firstChild], [1, 3, -1, 5, -1, -1])
  assert.deepEqual(path(flame, 5).map((f) => nameOf(flame, f)), ['total', 'a', 'b', 'a'])
})

test('decode takes numbers, absent fields and an empty answer', () => {
  assert.equal(decode({}).count, 0)
  assert.equal(decode({ names: ['total'], levels: [{}] }).count, 0)
  assert.equal(decode({ names: ['total'], levels: [{ values: [0, 7, 7, 0] }] }).total[0], 7)
})

test('decode refuses what is not a flame graph', () => {
  const broken = (levels, names = ['total', 'a']) => () => decode({ names, levels: levels.map((values) => ({ values })) })
  assert.throws(broken([[0, 1, 1]]), /4-tuples/)
  assert.throws(broken([[0, 1, 1, 2]]), /names function 2 of 2/)
  assert.throws(broken([[0, 1, 1, -1]]), /names function -1/)
  assert.throws(broken([[0, 5, 0, 0], [5, 3, 3, 1]]), /level 1 has no parent/)
  assert.throws(broken([[0, 5, 0, 0], [-2, 3, 3, 1]]), /level 1 has no parent/)
  assert.throws(broken([[0, 5, 0, 0, 0, 5, 5, 1], [0, 1, 1, 1]]), /2 roots/)
})

test('frameAt finds what is drawn at a point, and nothing in the gaps', () => {
  const flame = decode(WIRE)
  assert.equal(frameAt(flame, 0, 99), 0)
  assert.equal(frameAt(flame, 1, 62), -1)
  assert.equal(frameAt(flame, 1, 65), 2)
  assert.equal(frameAt(flame, 2, 39), 3)
  assert.equal(frameAt(flame, 2, 40), 4)
  assert.equal(frameAt(flame, 3, 45), -1)
  assert.equal(frameAt(flame, 4, 0), -1)
  assert.equal(frameAt(flame, -1, 0), -1)
  assert.equal(firstEndingAfter(flame, 2, 60), 5)
})

test('a path key finds the same stack in other data', () => {
  const flame = decode(WIRE)
  const newer = decode({
    names: ['total', 'zzz', 'b', 'a'],
    levels: [{ values: [0, 9, 0, 0] }, { values: [0, 4, 0, 1, 0, 5, 0, 3] }, { values: [0, 4, 4, 2, 0, 5, 5, 2] }],
  })
  const key = pathKey(flame, 3) // total, a, b
  assert.equal(nameOf(newer, findPath(newer, key)), 'b')
  assert.equal(newer.start[findPath(newer, key)], 4)
  for (let f = 0; f < flame.count; f++) assert.equal(findPath(flame, pathKey(flame, f)), f)
  assert.equal(findPath(newer, pathKey(flame, 5)), 0)
  assert.equal(findPath(flame, 'nonsense'), 0)
})

test('truncated sees the folded remainder, not a function of that name', () => {
  assert.equal(truncated(decode(WIRE)), true)
  const named = { names: ['total', 'other', 'leaf'], levels: [{ values: [0, 2, 0, 0] }, { values: [0, 2, 0, 1] }, { values: [0, 2, 2, 2] }] }
  assert.equal(truncated(decode(named)), false)
})
