// A flame graph as flat columns, decoded once from the flamebearer levels that the API sends.

/** WireFlameGraph is querier.v1.FlameGraph as proto3 JSON: int64 as strings, absent means empty. */
export interface WireFlameGraph {
  names?: string[]
  levels?: { values?: (string | number)[] }[]
  total?: string | number
  maxSelf?: string | number
}

/**
 * Flame holds frames in level order; frame 0 is the root. Siblings are neighbours, so the children of
 * frame i are the `children[i]` frames from `firstChild[i]` on.
 */
export interface Flame {
  names: string[]
  count: number
  /** Level l is the frames levels[l] up to, not including, levels[l + 1]. */
  levels: Int32Array
  level: Int32Array
  start: Float64Array
  total: Float64Array
  self: Float64Array
  name: Int32Array
  parent: Int32Array
  firstChild: Int32Array
  children: Int32Array
}

/** The API names what it cut away from the bottom of a stack so. */
export const TRUNCATED = 'other'

const TUPLE = 4 // x offset from the end of the previous frame in its level, total, self, name index

/** decode checks what it reads: a frame without a name or a parent is an error, never a guess. */
export function decode(wire: WireFlameGraph): Flame {
  const levels = (wire.levels ?? []).map((l) => l.values ?? [])
  while (levels.length > 0 && levels[levels.length - 1]!.length === 0) levels.pop()
  const count = levels.reduce((n, values) => n + values.length / TUPLE, 0)
  if (!Number.isInteger(count)) throw new Error('malformed flame graph: a level is not made of 4-tuples')

  const flame = allocate(wire.names ?? [], count, levels.length)
  let frame = 0
  levels.forEach((values, level) => {
    flame.levels[level] = frame
    let end = 0
    for (let i = 0; i < values.length; i += TUPLE, frame++) {
      const start = end + Number(values[i])
      const total = Number(values[i + 1])
      const name = Number(values[i + 3])
      if (!(name >= 0 && name < flame.names.length)) {
        throw new Error(`malformed flame graph: level ${level} names function ${name} of ${flame.names.length}`)
      }
      flame.start[frame] = start
      flame.total[frame] = total
      flame.self[frame] = Number(values[i + 2])
      flame.name[frame] = name
      flame.level[frame] = level
      end = start + total
    }
  })
  flame.levels[levels.length] = frame
  adopt(flame)
  return flame
}

function allocate(names: string[], count: number, depth: number): Flame {
  return {
    names,
    count,
    levels: new Int32Array(depth + 1),
    level: new Int32Array(count),
    start: new Float64Array(count),
    total: new Float64Array(count),
    self: new Float64Array(count),
    name: new Int32Array(count),
    parent: new Int32Array(count).fill(-1),
    firstChild: new Int32Array(count).fill(-1),
    children: new Int32Array(count),
  }
}

/** adopt finds every frame's parent: both levels are sorted by start, so one pass with two fingers. */
function adopt(flame: Flame): void {
  const { levels, start, total, parent, firstChild, children } = flame
  if (levels.length > 1 && levels[1] !== 1) throw new Error(`malformed flame graph: ${levels[1]} roots`)
  for (let level = 1; level + 1 < levels.length; level++) {
    let p = levels[level - 1]!
    for (let f = levels[level]!; f < levels[level + 1]!; f++) {
      while (p < levels[level]! && start[p]! + total[p]! <= start[f]!) p++
      if (p === levels[level]! || start[p]! > start[f]!) {
        throw new Error(`malformed flame graph: a frame of level ${level} has no parent`)
      }
      parent[f] = p
      if (children[p]!++ === 0) firstChild[p] = f
    }
  }
}

export function depth(flame: Flame): number {
  return flame.levels.length - 1
}

export function nameOf(flame: Flame, frame: number): string {
  return flame.names[flame.name[frame]!]!
}

/** path lists the frames from the root to frame, both included. */
export function path(flame: Flame, frame: number): number[] {
  const frames: number[] = []
  for (let f = frame; f >= 0; f = flame.parent[f]!) frames.push(f)
  return frames.reverse()
}

/** frameAt finds the frame of a level that covers value x, or -1. */
export function frameAt(flame: Flame, level: number, x: number): number {
  if (level < 0 || level >= depth(flame)) return -1
  const f = firstEndingAfter(flame, level, x)
  return f < flame.levels[level + 1]! && flame.start[f]! <= x ? f : -1
}

/** firstEndingAfter finds the first frame of a level that ends behind value x. */
export function firstEndingAfter(flame: Flame, level: number, x: number): number {
  let low = flame.levels[level]!
  let high = flame.levels[level + 1]!
  while (low < high) {
    const mid = (low + high) >> 1
    if (flame.start[mid]! + flame.total[mid]! > x) high = mid
    else low = mid + 1
  }
  return low
}

/** truncated tells whether the API cut small frames away. */
export function truncated(flame: Flame): boolean {
  const name = flame.names.indexOf(TRUNCATED)
  if (name < 0) return false
  for (let f = 1; f < flame.count; f++) {
    if (flame.name[f] === name && flame.children[f] === 0) return true
  }
  return false
}

/**
 * pathKey names a frame by its level and a hash of the names on its path, so that a link finds the same
 * stack again in newer data. findPath is its inverse and returns the root for a stack that is gone.
 */
export function pathKey(flame: Flame, frame: number): string {
  if (frame <= 0) return ''
  return `${flame.level[frame]}-${pathHash(flame, frame).toString(36)}`
}

export function findPath(flame: Flame, key: string): number {
  const level = Number.parseInt(key, 10)
  if (!(level > 0 && level < depth(flame))) return 0
  for (let f = flame.levels[level]!; f < flame.levels[level + 1]!; f++) {
    if (pathKey(flame, f) === key) return f
  }
  return 0
}

function pathHash(flame: Flame, frame: number): number {
  let h = 0
  for (let f = frame; f > 0; f = flame.parent[f]!) h = Math.imul(h, 31) + hash(nameOf(flame, f))
  return h >>> 0
}

/** hash is 32-bit FNV-1a over UTF-16 code units. */
export function hash(text: string, seed = 0x811c9dc5): number {
  let h = seed
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h >>> 0
}
