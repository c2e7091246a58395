import assert from 'node:assert/strict'
import test from 'node:test'
import { decode } from '../src/model/flame.ts'
import { matched, matches, sorted, topFunctions } from '../src/model/top.ts'

// main → fib → fib → fib, main → print → fib; all in one graph with a root self of 3.
const flame = decode({
  names: ['total', 'main', 'fib', 'print'],
  levels: [
    { values: [0, 53, 3, 0] },
    { values: [3, 50, 0, 1] },
    { values: [3, 30, 10, 2, 0, 20, 5, 3] },
    { values: [13, 20, 15, 2, 5, 15, 15, 2] },
    { values: [28, 5, 5, 2] },
  ],
})
const table = (rows) => Object.fromEntries(rows.map((r) => [flame.names[r.name], [r.self, r.total]]))

test('self sums over all frames, total counts recursion once', () => {
  assert.deepEqual(table(topFunctions(flame)), { total: [3, 3], main: [0, 50], fib: [45, 45], print: [5, 20] })
})

test('the selfs of all functions are the total of the graph', () => {
  const selfs = topFunctions(flame).reduce((sum, r) => sum + r.self, 0)
  assert.equal(selfs, flame.total[0])
})

test('the root has a row only for samples without a stack', () => {
  const bare = decode({ names: ['total', 'f'], levels: [{ values: [0, 1, 0, 0] }, { values: [0, 1, 1, 1] }] })
  assert.deepEqual(topFunctions(bare).map((r) => bare.names[r.name]), ['f'])
})

test('a function that has the name of the root is a function', () => {
  const odd = decode({ names: ['total'], levels: [{ values: [0, 4, 0, 0] }, { values: [0, 4, 4, 0] }] })
  assert.deepEqual(topFunctions(odd), [{ name: 0, self: 4, total: 4 }])
})

test('rows sort by any column; equal values by name', () => {
  const rows = [{ name: 1, self: 1, total: 9 }, { name: 2, self: 5, total: 9 }, { name: 3, self: 1, total: 2 }]
  const order = (by, descending) => sorted(rows, flame.names, { by, descending }).map((r) => flame.names[r.name])
  assert.deepEqual(order('self', true), ['fib', 'main', 'print'])
  assert.deepEqual(order('total', true), ['fib', 'main', 'print'])
  assert.deepEqual(order('total', false), ['print', 'fib', 'main'])
  assert.deepEqual(order('name', true), ['print', 'main', 'fib'])
  assert.equal(rows[0].name, 1) // the argument stays as it was
})

test('a match counts the stacks below it once, whatever its case', () => {
  assert.deepEqual(matched(flame, matches(flame.names, 'FIB')), { frames: 4, total: 45 })
  assert.deepEqual(matched(flame, matches(flame.names, 'i')), { frames: 6, total: 50 })
  assert.deepEqual(matched(flame, matches(flame.names, '.*')), { frames: 0, total: 0 })
})

test('the root never matches', () => {
  assert.deepEqual(matched(flame, matches(flame.names, 'total')), { frames: 0, total: 0 })
})
