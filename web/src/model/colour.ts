// Colours of frames: one hue per package, the same in every graph, readable and safe for colour-blind eyes.

import { hash, TRUNCATED } from './flame.ts'

export type Scheme = 'light' | 'dark'

type RGB = readonly [number, number, number]

// Paul Tol's "light" scheme, made for filling labelled cells so that all kinds of colour vision tell them apart
// (personal.sron.nl/~pault). Without its olive, which is too near to pear, and its grey, which is the runtime's.
const HUES: RGB[] = ['#77aadd', '#99ddff', '#44bb99', '#bbcc33', '#eedd88', '#ee8866', '#ffaabb'].map(rgb)
const NEUTRAL: RGB = rgb('#d6d3ce')

const WHITE: RGB = [255, 255, 255]
const BLACK: RGB = [0, 0, 0]

export const INK: Record<Scheme, string> = { light: '#1c1917', dark: '#0c0a09' }

// Parts of a language runtime are everywhere and seldom the answer: grey lets one's own code stand out.
const RUNTIME = /^(runtime(\/.*)?|syscall|internal\/.*|\[.*|libc.*|ld-linux.*|java\.lang.*|jdk\.internal.*)$/

export const SHADES = 3

/**
 * fill is the colour of a function: hue by package, one of three close shades by name. A marked function has a hue
 * also where it would be grey: what was searched for must not look like what was not.
 */
export function fill(name: string, scheme: Scheme, marked = false): string {
  const pkg = packageOf(name)
  const neutral = !marked && (name === TRUNCATED || RUNTIME.test(pkg))
  return shade(neutral ? -1 : hueOf(pkg), hash(name) % SHADES, scheme)
}

// With this seed the packages met most often (main, net/http, encoding/json, fmt, database/sql) differ in hue.
const SEED = 46_609

function hueOf(pkg: string): number {
  const h = hash(pkg, SEED)
  return ((h ^ (h >>> 15)) >>> 0) % HUES.length
}

/** shade is fill's palette: hue -1 is the neutral one. */
export function shade(hue: number, step: number, scheme: Scheme): string {
  const base = hue < 0 ? NEUTRAL : HUES[hue]!
  const soft = scheme === 'light' ? mix(base, WHITE, 0.18) : mix(base, BLACK, hue < 0 ? 0.3 : 0.15)
  return css(mix(soft, scheme === 'light' ? WHITE : BLACK, step * (scheme === 'light' ? 0.09 : 0.06)))
}

export const HUE_COUNT = HUES.length

/**
 * packageOf guesses the package of a function in the languages that profiles come from: Go import paths, Rust and C++
 * namespaces, Java packages. Type arguments and receivers are cut first: they hold paths of their own.
 */
export function packageOf(name: string): string {
  const plain = bare(name)
  const colons = plain.indexOf('::')
  if (colons > 0) return plain.slice(0, colons)
  const slash = plain.lastIndexOf('/')
  const dot = plain.indexOf('.', slash + 1)
  if (slash >= 0) return dot < 0 ? plain.slice(0, slash) : plain.slice(0, dot)
  const parts = plain.split('.')
  const type = parts.findIndex((p) => /^[A-Z]/.test(p))
  return type >= 2 ? parts.slice(0, type).join('.') : parts[0]!
}

/** shortName drops the directories of the package: net/http.(*conn).serve is http.(*conn).serve. */
export function shortName(name: string): string {
  const slash = bare(name).lastIndexOf('/')
  return slash < 0 || slash === name.length - 1 ? name : name.slice(slash + 1)
}

function bare(name: string): string {
  const cut = name.search(/[[(<{ ]/)
  return cut > 0 ? name.slice(0, cut) : name
}

function rgb(hex: string): RGB {
  const n = Number.parseInt(hex.slice(1), 16)
  return [n >> 16, (n >> 8) & 255, n & 255]
}

function mix(a: RGB, b: RGB, share: number): RGB {
  return [0, 1, 2].map((i) => Math.round(a[i]! * (1 - share) + b[i]! * share)) as unknown as RGB
}

function css(c: RGB): string {
  return `#${c.map((v) => v.toString(16).padStart(2, '0')).join('')}`
}
