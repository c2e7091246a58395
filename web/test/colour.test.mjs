import assert from 'node:assert/strict'
import test from 'node:test'
import { fill, HUE_COUNT, INK, packageOf, shade, SHADES, shortName } from '../src/model/colour.ts'

test('packages of the languages that profiles come from', () => {
  const cases = {
    'runtime.mallocgc': 'runtime',
    'net/http.(*conn).serve': 'net/http',
    'net/http.HandlerFunc.ServeHTTP': 'net/http',
    'github.com/acme/shop/checkout.(*Service).PlaceOrder.func1': 'github.com/acme/shop/checkout',
    'gopkg.in/yaml%2ev3.(*parser).parse': 'gopkg.in/yaml%2ev3',
    'slices.SortFunc[go.shape.struct { github.com/a/b.T }]': 'slices',
    'main.main.func1.2': 'main',
    'time.Time.Add': 'time',
    'java.util.concurrent.ThreadPoolExecutor.runWorker': 'java.util.concurrent',
    'core::ops::function::FnOnce::call_once': 'core',
    'operator new(unsigned long)': 'operator',
    '[libc.so.6]': '[libc',
    '': '',
  }
  for (const [name, want] of Object.entries(cases)) assert.equal(packageOf(name), want, name)
})

test('short names drop directories and nothing else', () => {
  assert.equal(shortName('net/http.(*conn).serve'), 'http.(*conn).serve')
  assert.equal(shortName('runtime.mallocgc'), 'runtime.mallocgc')
  assert.equal(shortName('slices.Sort[a/b.T]'), 'slices.Sort[a/b.T]')
  assert.equal(shortName('a/'), 'a/')
  assert.equal(shortName('/'), '/')
})

test('functions of a package share a hue, the runtime steps back', () => {
  const shades = new Set(Array.from({ length: 50 }, (_, i) => fill(`encoding/json.f${i}`, 'light')))
  assert.equal(shades.size, SHADES)
  const neutral = new Set([0, 1, 2].map((s) => shade(-1, s, 'light')))
  assert.ok(neutral.has(fill('runtime.mallocgc', 'light')))
  assert.ok(neutral.has(fill('other', 'light')))
  assert.ok(!neutral.has(fill('main.main', 'light')))
  assert.ok(!neutral.has(fill('runtime.mallocgc', 'light', true)), 'a match is never grey')
})

test('packages that are met most often differ', () => {
  const often = ['main.f', 'net/http.f', 'encoding/json.f', 'fmt.f', 'database/sql.f']
  assert.equal(new Set(often.map((name) => fill(name, 'light'))).size, often.length)
})

const channels = (hex) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255)
const linear = (hex) => channels(hex).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
const luminance = (hex) => linear(hex).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)

test('text on every fill has a contrast of at least 4.5 (WCAG AA)', () => {
  for (const scheme of ['light', 'dark']) {
    for (let hue = -1; hue < HUE_COUNT; hue++) {
      for (let step = 0; step < SHADES; step++) {
        const [low, high] = [luminance(INK[scheme]), luminance(shade(hue, step, scheme))].sort((a, b) => a - b)
        const contrast = (high + 0.05) / (low + 0.05)
        assert.ok(contrast >= 4.5, `${scheme} hue ${hue} step ${step}: ${contrast.toFixed(2)}`)
      }
    }
  }
})

// Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
const EYES = {
  normal: [1, 0, 0, 0, 1, 0, 0, 0, 1],
  protan: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
  deutan: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
  tritan: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
}

function lab(rgb) {
  const f = (t) => (t > 216 / 24389 ? Math.cbrt(t) : (t * 24389) / 27 / 116 + 16 / 116)
  const [r, g, b] = rgb.map((c) => Math.min(1, Math.max(0, c)))
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047)
  const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b)
  const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883)
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)]
}

test('hues stay apart for every kind of colour vision', () => {
  for (const scheme of ['light', 'dark']) {
    for (const [eye, m] of Object.entries(EYES)) {
      const seen = Array.from({ length: HUE_COUNT }, (_, hue) => {
        const c = linear(shade(hue, 0, scheme))
        return lab([0, 3, 6].map((row) => m[row] * c[0] + m[row + 1] * c[1] + m[row + 2] * c[2]))
      })
      for (let a = 0; a < HUE_COUNT; a++) {
        for (let b = a + 1; b < HUE_COUNT; b++) {
          const distance = Math.hypot(...seen[a].map((v, i) => v - seen[b][i]))
          assert.ok(distance >= 10, `${scheme} ${eye}: hues ${a} and ${b} are ${distance.toFixed(1)} apart`)
        }
      }
    }
  }
})
