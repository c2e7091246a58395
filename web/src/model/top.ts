// The top table and search: sums per function, computed from the frames of a flame graph.

import { type Flame } from './flame.ts'

export interface Row {
  /** Index into Flame.names. */
  name: number
  self: number
  total: number
}

/**
 * topFunctions sums self and total per function. Recursion counts once: a frame adds its total only if no frame
 * above it has the same name. The root is not a function; it has a row only for samples without a stack.
 */
export function topFunctions(flame: Flame): Row[] {
  const rows = new Map<number, Row>()
  for (let f = 0; f < flame.count; f++) {
    if (f === 0 && flame.self[0] === 0) continue
    const name = flame.name[f]!
    let row = rows.get(name)
    if (row === undefined) rows.set(name, (row = { name, self: 0, total: 0 }))
    row.self += flame.self[f]!
    if (f === 0) row.total += flame.self[0]!
    else if (!insideItself(flame, f)) row.total += flame.total[f]!
  }
  return [...rows.values()]
}

function insideItself(flame: Flame, frame: number): boolean {
  for (let f = flame.parent[frame]!; f > 0; f = flame.parent[f]!) {
    if (flame.name[f] === flame.name[frame]) return true
  }
  return false
}

export type Column = 'name' | 'self' | 'total'
export interface Order {
  by: Column
  descending: boolean
}

/** sorted returns a new array; equal values are ordered by name, so that the order never depends on the data's. */
export function sorted(rows: Row[], names: string[], order: Order): Row[] {
  const sign = order.descending ? -1 : 1
  const byName = (a: Row, b: Row) => (names[a.name]! < names[b.name]! ? -1 : names[a.name]! > names[b.name]! ? 1 : 0)
  if (order.by === 'name') return [...rows].sort((a, b) => sign * byName(a, b))
  const by = order.by
  return [...rows].sort((a, b) => sign * (a[by] - b[by]) || byName(a, b))
}

/** matches tells for every name whether it contains the text, whatever its case. */
export function matches(names: string[], text: string): Uint8Array {
  const wanted = text.toLowerCase()
  return Uint8Array.from(names, (name) => (name.toLowerCase().includes(wanted) ? 1 : 0))
}

export interface Match {
  frames: number
  /** The value of all stacks that hold a matching frame, each counted once. */
  total: number
}

/** matched sums what lies under matching frames; the root never matches. */
export function matched(flame: Flame, names: Uint8Array): Match {
  const inside = new Uint8Array(flame.count)
  const match = { frames: 0, total: 0 }
  for (let f = 1; f < flame.count; f++) {
    const hit = names[flame.name[f]!] === 1
    const above = inside[flame.parent[f]!] === 1
    if (hit) match.frames++
    if (hit && !above) match.total += flame.total[f]!
    if (hit || above) inside[f] = 1
  }
  return match
}
