// A stand-in for kiln on loopback: the built page, and fixed synthetic answers in the shape of the API.
// Alone it serves the page for looking at: node e2e/fake.mjs [port]

import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { operations } from './fakeoperations.mjs'
import { HOSTILE } from './names.mjs'

export const CPU = 'process_cpu:cpu:nanoseconds:cpu:nanoseconds'
const HEAP = 'memory:inuse_space:bytes:space:bytes'
const GOROUTINES = 'goroutine:goroutine:count:goroutine:count'

/** Frames per service; giant is what the largest answers look like. */
const SERVICES = { 'api-gateway': 900, checkout: 4_000, giant: 20_000 }
const TYPES = [CPU, 'process_cpu:samples:count:cpu:nanoseconds', HEAP, GOROUTINES]

const PACKAGES = {
  'net/http': ['(*conn).serve', 'HandlerFunc.ServeHTTP', '(*ServeMux).ServeHTTP', '(*Transport).roundTrip', '(*body).Read'],
  'encoding/json': ['(*decodeState).object', '(*decodeState).value', '(*encodeState).marshal', 'Marshal', 'Unmarshal'],
  'github.com/acme/shop/checkout': ['(*Service).PlaceOrder', '(*Cart).Total', 'validate', '(*Service).PlaceOrder.func1'],
  'github.com/acme/shop/inventory': ['(*Store).Reserve', '(*Store).lookup', 'rank'],
  'github.com/acme/shop/pricing': ['(*Engine).Quote', '(*Rules).match', 'discount'],
  'database/sql': ['(*DB).QueryContext', '(*Rows).Next', '(*Tx).ExecContext', 'convertAssignRows'],
  'crypto/tls': ['(*Conn).Write', '(*halfConn).encrypt', '(*Conn).readRecord'],
  'crypto/internal/fips140/aes/gcm': ['gcmAesEnc', 'sealAfterNonce'],
  'github.com/jackc/pgx/v5/pgconn': ['(*PgConn).ExecParams', '(*ResultReader).NextRow'],
  'compress/flate': ['(*compressor).deflate', '(*huffmanBitWriter).writeBlock'],
  'golang.org/x/text/unicode/norm': ['(*Iter).Next', 'doNormDecomposed'],
  regexp: ['(*Regexp).doExecute', '(*machine).step', '(*Regexp).backtrack'],
  'regexp/syntax': ['(*parser).parse', '(*compiler).inst'],
  strconv: ['ParseFloat', 'FormatInt', 'appendQuotedWith'],
  bufio: ['(*Writer).Flush', '(*Reader).ReadLine'],
  sort: ['pdqsort_func', 'insertionSort_func'],
  fmt: ['Fprintf', '(*pp).doPrintf', '(*pp).printValue'],
  runtime: ['mallocgc', 'gcBgMarkWorker', 'scanobject', 'mapassign_faststr', 'memmove', 'findRunnable', 'growslice'],
  syscall: ['Syscall', 'write'],
  'main': ['main', 'serve', 'handler.func2'],
}
const NAMES = Object.entries(PACKAGES).flatMap(([pkg, functions]) => functions.map((f) => `${pkg}.${f}`))

function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** grow makes a tree of about `size` frames: the heaviest leaf is split until there are enough. */
function grow(size, total, next) {
  const root = { name: 'total', total, self: total, children: [], depth: 0 }
  let count = 1
  let leaves = [root]
  while (count < size && leaves.length > 0) {
    const later = []
    for (const parent of leaves) {
      if (count >= size) break
      const wanted = parent === root ? 6 : 1 + Math.floor(next() * next() * 4.5)
      let left = Math.floor(parent.self * (parent === root ? 0.995 : 0.82 + next() * 0.18))
      const names = pickNames(parent, wanted, next)
      names.forEach((name, i) => {
        const share = i === names.length - 1 ? 1 : 0.25 + next() * 0.6
        const value = Math.floor(left * share)
        if (value < 2) return
        left -= value
        parent.self -= value
        const child = { name, total: value, self: value, children: [], depth: parent.depth + 1 }
        parent.children.push(child)
        count++
        if (next() < 0.93) later.push(child)
      })
    }
    leaves = later.sort((a, b) => b.total - a.total)
  }
  return root
}

function pickNames(parent, wanted, next) {
  const names = new Set()
  if (parent.name === 'encoding/json.(*decodeState).object' || parent.name === 'fmt.(*pp).printValue') names.add(parent.name)
  if (parent.depth === 0) names.add('net/http.(*conn).serve').add('runtime.gcBgMarkWorker').add(HOSTILE)
  while (names.size < wanted) names.add(NAMES[Math.floor(next() * NAMES.length)])
  const list = [...names]
  if (parent.depth > 3 && next() < 0.04) list.push('other')
  return list
}

/** levels writes a tree as flamebearer: per level 4-tuples of x offset from the last end, total, self, name index. */
export function levels(root) {
  const names = []
  const index = new Map()
  const out = []
  let maxSelf = 0
  for (let row = [[root, 0]]; row.length > 0; ) {
    const values = []
    const below = []
    let end = 0
    for (const [node, start] of row) {
      if (!index.has(node.name)) index.set(node.name, names.push(node.name) - 1)
      values.push(start - end, node.total, node.self, index.get(node.name))
      end = start + node.total
      maxSelf = Math.max(maxSelf, node.self)
      let at = start
      for (const child of [...node.children].sort((a, b) => (a.name < b.name ? -1 : 1))) {
        below.push([child, at])
        at += child.total
      }
    }
    out.push({ values: values.map(String) })
    row = below
  }
  return { names, levels: out, total: String(root.total), maxSelf: String(maxSelf) }
}

const graphs = new Map()
function graph(service, type) {
  const key = `${service} ${type}`
  if (!graphs.has(key)) {
    const seed = [...key].reduce((n, c) => Math.imul(n, 31) + c.charCodeAt(0), 7)
    const total = type === CPU ? 569_400_000_000 : type === HEAP ? 3_456_789_012 : 1_234_567
    graphs.set(key, levels(grow(SERVICES[service], total, random(seed))))
  }
  return graphs.get(key)
}

function points(start, end, step) {
  const out = []
  for (let t = Math.ceil(start / 1000 / step) * step; t <= end / 1000; t += step) {
    const wave = 2.2 + Math.sin(t / 700) + 0.4 * Math.sin(t / 41) + (t % 3600 > 2400 && t % 3600 < 2800 ? 3 : 0)
    out.push({ timestamp: String(Math.round(t * 1000)), value: Math.round(wave * step * 1e9) })
  }
  return out
}

class Refusal extends Error {
  constructor(status, code, message) {
    super(message)
    Object.assign(this, { status, code })
  }
}

/** select reads a label selector and gives the service it asks for. */
function select(selector) {
  const matcher = /^\s*[A-Za-z_]\w*\s*(=|!=|=~|!~)\s*"(\\.|[^"\\])*"\s*$/
  const inner = /^\{(.*)\}$/.exec(selector)?.[1]
  const parts = inner?.split(',').filter((p) => p.trim() !== '')
  const bad = parts === undefined ? selector : parts.find((p) => !matcher.test(p))
  if (bad !== undefined) throw new Refusal(400, 'invalid_argument', `label selector ${selector}: cannot read "${bad.trim()}"`)
  return /service_name="([^"]*)"/.exec(selector)?.[1]
}

const YEAR_2020 = 1_577_836_800_000
const calls = {
  Series({ end }) {
    if (Number(end) < YEAR_2020) return {}
    const labels = (service, type) => [
      { name: '__profile_type__', value: type },
      { name: 'service_name', value: service },
    ]
    return { labelsSet: Object.keys(SERVICES).flatMap((s) => TYPES.map((t) => ({ labels: labels(s, t) }))) }
  },
  SelectSeries({ labelSelector, start, end, step }) {
    const service = select(labelSelector)
    if (Number(end) < YEAR_2020 || !(service in SERVICES)) return {}
    return { series: [{ labels: [], points: points(Number(start), Number(end), step) }] }
  },
  SelectMergeStacktraces({ labelSelector, end, profileTypeID }) {
    const service = select(labelSelector)
    if (Number(end) < YEAR_2020 || !(service in SERVICES)) return { flamegraph: {} }
    return { flamegraph: graph(service, profileTypeID) }
  },
  ...operations,
}

const FILES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' }

/** The policy of the real server, so that the page is tried under it. */
const POLICY = /const policy = "(.*)"/.exec(await readFile(new URL('../web.go', import.meta.url), 'utf8'))[1]

async function answerFile(path, res) {
  const name = path === '/' ? '/index.html' : path
  const type = FILES[/\.\w+$/.exec(name)?.[0]]
  if (type === undefined || name.includes('..')) throw new Refusal(404, 'not_found', 'no such file')
  const body = await readFile(new URL(`../dist${name}`, import.meta.url)).catch(() => {
    throw new Refusal(404, 'not_found', 'no such file')
  })
  res.writeHead(200, { 'content-type': type, 'content-security-policy': POLICY }).end(body)
}

async function answer(req, res, options) {
  const path = new URL(req.url, 'http://fake').pathname
  const method = /^\/[\w.]+Service\/(\w+)$/.exec(path)?.[1]
  if (method === undefined) return answerFile(path, res)
  let body = ''
  for await (const chunk of req) body += chunk
  if (options.broken) return res.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>')
  if (options.tenant !== undefined && req.headers['x-scope-orgid'] !== options.tenant) {
    throw new Refusal(401, 'unauthenticated', 'no tenant: send X-Scope-OrgID')
  }
  if (options.absent?.includes(method)) return res.writeHead(404, { 'content-type': 'text/plain' }).end('404 page not found\n')
  if (options.leaderless) throw new Refusal(503, 'unavailable', 'no member of the metastore leads')
  if (!(method in calls)) throw new Refusal(501, 'unimplemented', method)
  const reply = JSON.stringify(await (options.answers?.[method] ?? calls[method])(JSON.parse(body)))
  res.writeHead(200, { 'content-type': 'application/json', ...options.headers }).end(reply)
}

/**
 * startFake listens on loopback and returns its URL and how to stop it. Options, which may change while it runs: port, tenant
 * (then required), broken, leaderless, absent (methods it does not serve), answers (by method, instead of its own), headers.
 */
export async function startFake(options = {}) {
  const server = createServer((req, res) => {
    answer(req, res, options).catch((err) => {
      const { status = 500, code = 'internal', message } = err
      res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ code, message }))
    })
  })
  await new Promise((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve))),
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log((await startFake({ port: Number(process.argv[2] ?? 4041) })).url)
}
