import assert from 'node:assert/strict'
import test from 'node:test'
import { dataKey, parseLink, printLink } from '../src/model/link.ts'
import { DEFAULT_SORTS } from '../src/model/operations.ts'
import { catalogue, defaultType, inCores, parseProfileType, profileTypeLabel } from '../src/model/profiletype.ts'
import { fromLocalInput, lengthOf, localInput, parseRange, resolve, stepOf } from '../src/model/range.ts'
import { joinSelector } from '../src/model/selector.ts'
import { timeline } from '../src/model/timeline.ts'

const CPU = 'process_cpu:cpu:nanoseconds:cpu:nanoseconds'

test('a link says everything, and only what is not default', () => {
  const link = {
    view: 'operations',
    service: 'api & gateway',
    profileType: CPU,
    labels: '{namespace="prod"}',
    range: { from: 1000, until: 2000 },
    refresh: 30,
    search: '<img>',
    picked: 'a/b.(*T).M[c]',
    zoom: '3-abc',
    order: { by: 'total', descending: false },
    paused: true,
    sorts: { ...DEFAULT_SORTS, jobs: { by: 'age', descending: true }, nodes: { by: 'seen', descending: false } },
  }
  assert.deepEqual(parseLink(printLink(link)), link)
  assert.equal(printLink(parseLink('')), '')
  const relative = { ...parseLink(''), range: { last: '6h' } }
  assert.equal(printLink(relative), '?from=now-6h')
  assert.equal(printLink({ ...relative, view: 'operations', sorts: link.sorts }), '?view=operations&from=now-6h&sort.nodes=seen&sort.jobs=-age')
  assert.deepEqual(parseLink('?from=now-6h').range, { last: '6h' })
})

test('a broken link falls back to defaults', () => {
  const link = parseLink('?view=kitchen&refresh=7&sort=-colour&sort.jobs=-colour&sort.nodes=constructor&from=5&until=3')
  assert.deepEqual(link, parseLink(''))
  assert.deepEqual(link.range, { last: '1h' })
  assert.deepEqual(parseRange('now-0h', null), { last: '1h' })
  assert.deepEqual(parseRange('x', '5'), { last: '1h' })
})

test('only what changes the answer asks for a new one', () => {
  const link = parseLink('?service=a')
  assert.equal(dataKey({ ...link, zoom: '1-a', search: 's', picked: 'p', refresh: 10 }), dataKey(link))
  assert.notEqual(dataKey({ ...link, labels: 'a="b"' }), dataKey(link))
  assert.notEqual(dataKey({ ...link, range: { last: '5m' } }), dataKey(link))
})

test('ranges', () => {
  assert.equal(lengthOf('15m'), 900_000)
  assert.ok(Number.isNaN(lengthOf('15 minutes')))
  assert.deepEqual(resolve({ last: '1h' }, 5_000_000), { start: 1_400_000, end: 5_000_000 })
  const ms = new Date('2026-11-20T09:05:30').getTime()
  assert.equal(localInput(ms), '2026-11-20T09:05:30')
  assert.equal(fromLocalInput(localInput(ms)), ms)
})

test('steps are round, enough to see, never more than a screen holds', () => {
  const step = (seconds) => stepOf({ start: 0, end: seconds * 1000 })
  assert.equal(step(300), 15)
  assert.equal(step(3600), 15)
  assert.equal(step(6 * 3600), 120)
  assert.equal(step(24 * 3600), 600)
  assert.equal(step(20), 1)
  for (const s of [10, 100, 299, 1e4, 1e6, 1e8]) assert.ok(s / step(s) <= 250)
})

test('the typed selector joins the service, with or without braces', () => {
  assert.equal(joinSelector('api', ''), '{service_name="api"}')
  assert.equal(joinSelector('api', ' {namespace="prod"} '), '{service_name="api", namespace="prod"}')
  assert.equal(joinSelector('api', 'a="b", c=~"d"'), '{service_name="api", a="b", c=~"d"}')
  assert.equal(joinSelector('', '{}'), '{}')
  assert.equal(joinSelector('a"b\\', ''), '{service_name="a\\"b\\\\"}')
  assert.equal(joinSelector('api', '{a='), '{service_name="api", a=}') // the API says what is wrong
})

test('the catalogue offers services and their profile types, CPU first', () => {
  const labels = (service, type) => ({ labels: [{ name: 'service_name', value: service }, { name: '__profile_type__', value: type }] })
  const heap = 'memory:inuse_space:bytes:space:bytes'
  const known = catalogue([labels('b', heap), labels('a', CPU), labels('b', CPU), labels('b', CPU), { labels: [] }, {}])
  assert.deepEqual([...known], [['a', [CPU]], ['b', [heap, CPU]]])
  assert.equal(defaultType(known.get('b')), CPU)
  assert.equal(defaultType([heap]), heap)
  assert.equal(defaultType([]), '')
})

test('profile types read as people say them', () => {
  assert.equal(profileTypeLabel(parseProfileType(CPU)), 'process_cpu · cpu')
  assert.equal(profileTypeLabel(parseProfileType('goroutine:goroutine:count:goroutine:count')), 'goroutine')
  assert.equal(inCores(parseProfileType(CPU)), true)
  assert.equal(inCores(parseProfileType('mutex:delay:nanoseconds:contentions:count')), false)
})

test('a timeline sums its series and draws silence as zero', () => {
  const span = { start: 0, end: 100_000 }
  const series = [
    { points: [{ timestamp: '40000', value: 3 }, { timestamp: '50000', value: 1 }] },
    { points: [{ timestamp: '40000', value: 4 }, { timestamp: '80000' }] }, // proto3 JSON leaves zeros out
    {},
  ]
  const line = timeline(series, 10, span)
  assert.deepEqual(line.times, [30, 40, 50, 60, 70, 80, 90])
  assert.deepEqual(line.values, [0, 7, 1, 0, 0, 0, 0])
  assert.equal(line.sum, 8)
  assert.equal(line.peak, 7)
  assert.deepEqual(timeline([], 10, span), { times: [], values: [], sum: 0, peak: 0 })
})
