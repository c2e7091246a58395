// Drives the page in headless Chromium. KILN_URL names a kiln with data; without it the fake stands in.
// What needs certain answers (tenants, outages, hostile names, very large graphs) always runs against the fake.

import assert from 'node:assert/strict'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, before, describe } from 'node:test'
import { matching, seriesSum, topTable, tree } from './answer.mjs'
import { openBrowser, Visit } from './browser.mjs'
import { CPU, startFake } from './fake.mjs'
import { HOSTILE } from './names.mjs'

const HOUR = 3_600_000
const WAIT = 60_000
const EMPTY = '?service=nobody&from=922665600000&until=922669200000' // March 1999

let browser
let closeBrowser
let fake
let screenshots

before(async () => {
  screenshots = process.env.SCREENSHOTS ?? (await mkdtemp(join(tmpdir(), 'kiln-screenshots-')))
  await mkdir(screenshots, { recursive: true })
  fake = await startFake()
  ;({ browser, close: closeBrowser } = await openBrowser())
})

after(async () => {
  await closeBrowser?.()
  await fake?.stop()
  console.log(`screenshots: ${screenshots}`)
})

async function ask(base, method, body) {
  const response = await fetch(`${base}/querier.v1.QuerierService/${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return { status: response.status, body: await response.json() }
}

/** until asks again and again, for a minute at most, until there is something to return. */
async function until(what, attempt) {
  const deadline = Date.now() + WAIT
  while (Date.now() < deadline) {
    const result = await attempt()
    if (result) return result
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`${what}: not within ${WAIT / 1000} s`)
}

/** subject finds a service with CPU time, or else with anything, whose flame graph is not empty. */
async function subject(base) {
  return until(`data at ${base}`, async () => {
    const range = { start: String(Date.now() - HOUR), end: String(Date.now()) }
    const series = await ask(base, 'Series', { labelNames: ['service_name', '__profile_type__'], ...range })
    const offers = (series.body.labelsSet ?? []).map(({ labels }) => Object.fromEntries(labels.map((l) => [l.name, l.value])))
    offers.sort((a, b) => (b.__profile_type__ === CPU) - (a.__profile_type__ === CPU))
    for (const { service_name: service, __profile_type__: profileTypeID } of offers) {
      const labelSelector = `{service_name=${JSON.stringify(service)}}`
      const { body } = await ask(base, 'SelectMergeStacktraces', { profileTypeID, labelSelector, ...range })
      const levels = body.flamegraph?.levels ?? []
      if (Number(body.flamegraph?.total ?? 0) > 0 && levels.length > 2) return { service, profileTypeID, ...range }
    }
  })
}

/** link is a fixed range, so that page and test can ask the same question. */
function link({ service, profileTypeID, start, end }, more = {}) {
  return `?${new URLSearchParams({ service, type: profileTypeID, from: start, until: end, ...more })}`
}

/**
 * answered opens a link and gives what the page was told. The range ends now, and profiles of that range may still
 * be on their way: the page's answers count once the API gives the test the same ones.
 */
async function answered(visit, query) {
  return until('an answer that stays', async () => {
    await visit.go(query)
    const [flame, series] = ['SelectMergeStacktraces', 'SelectSeries'].map((m) => visit.calls.get(m))
    const again = await ask(visit.base, 'SelectMergeStacktraces', flame.request)
    const told = JSON.parse(flame.text)
    if (again.body.flamegraph?.total !== told.flamegraph?.total) return undefined
    return { flamegraph: told.flamegraph, nodes: tree(told.flamegraph), series: JSON.parse(series.text) }
  })
}

/** middle gives the point of the window where a node of an unzoomed graph is drawn. */
async function middle(visit, nodes, node) {
  const canvas = await visit.testid('flame')
  const row = Number(await visit.attribute('flame', 'data-row-height'))
  await visit.page.$eval('[data-testid="flame-scroll"]', (el) => (el.scrollTop = 0))
  const box = await canvas.boundingBox()
  return [box.x + ((node.start + node.total / 2) / nodes[0].total) * box.width, box.y + (node.level + 0.5) * row]
}

const widest = (nodes, level) => nodes.filter((n) => n.level === level).reduce((a, b) => (b.total > a.total ? b : a))

function clean(visit) {
  assert.deepEqual(visit.complaints, [])
  assert.deepEqual(visit.foreign, [])
}

describe(`the page at ${process.env.KILN_URL ?? 'the fake'}`, () => {
  let base
  let given
  let visit
  let answer

  before(async () => {
    base = (process.env.KILN_URL ?? fake.url).replace(/\/$/, '')
    given = await subject(base)
    visit = await Visit.open(browser, base)
    answer = await answered(visit, link(given))
  })
  after(() => visit?.page.close())

  test('the pickers find the service and its profile type', async () => {
    await visit.go('')
    await visit.act(async () => {
      await visit.page.select('[data-testid="range"]', '6h')
    })
    if ((await visit.page.$eval('[data-testid="service"]', (el) => el.value)) !== given.service) {
      await visit.act(() => visit.page.select('[data-testid="service"]', given.service))
    }
    if ((await visit.page.$eval('[data-testid="profile-type"]', (el) => el.value)) !== given.profileTypeID) {
      await visit.act(() => visit.page.select('[data-testid="profile-type"]', given.profileTypeID))
    }
    const params = new URL(visit.page.url()).searchParams
    assert.equal(params.get('service'), given.service)
    assert.equal(params.get('type'), given.profileTypeID)
    assert.equal(params.get('from'), 'now-6h')
    const asked = JSON.parse(visit.calls.get('SelectMergeStacktraces').request)
    assert.equal(asked.labelSelector, `{service_name=${JSON.stringify(given.service)}}`)
    assert.equal(asked.profileTypeID, given.profileTypeID)
    assert.equal(Number(asked.end) - Number(asked.start), 6 * HOUR)
  })

  test('the numbers are the API’s', async () => {
    answer = await answered(visit, link(given))
    assert.equal(await visit.value('flame-total'), Number(answer.flamegraph.total))
    assert.equal(await visit.text('flame-frames'), answer.nodes.length.toLocaleString('en-US'))
    assert.equal(await visit.value('timeline-sum'), seriesSum(answer.series))

    const shown = await visit.page.$$eval('[data-testid="top-row"]', (rows) =>
      rows.map((tr) => [tr.dataset.name, ...[...tr.querySelectorAll('td')].map((td) => Number(td.dataset.value))]),
    )
    const expected = topTable(answer.nodes).slice(0, 10)
    assert.deepEqual(shown.slice(0, expected.length), expected)
    clean(visit)
  })

  test('the table sorts by total and back', async () => {
    await visit.page.click('[data-testid="sort-total"]')
    await visit.page.waitForSelector('th.total[aria-sort="descending"]')
    const largest = Math.max(...topTable(answer.nodes).map((row) => row[2]))
    const first = await visit.page.$eval('[data-testid="top-row"] td.total', (td) => Number(td.dataset.value))
    assert.equal(first, largest)
    await visit.page.click('[data-testid="sort-self"]')
    await visit.page.waitForSelector('th.self[aria-sort="descending"]')
  })

  test('hovering explains the frame below the mouse', async () => {
    const node = widest(answer.nodes, 1)
    await visit.page.mouse.move(...(await middle(visit, answer.nodes, node)))
    await visit.waitFor('tooltip-name')
    assert.equal(await visit.text('tooltip-name'), node.name)
    assert.equal(await visit.value('tooltip-total'), node.total)
    assert.equal(await visit.value('tooltip-self'), node.self)
    const [, percent] = /([\d.]+) %/.exec(await visit.text('tooltip'))
    assert.ok(Math.abs(percent - (100 * node.total) / answer.nodes[0].total) <= 0.05, `${percent} %`)
  })

  test('a click zooms, Escape and the back button undo', async () => {
    const node = widest(answer.nodes, 2)
    await visit.page.mouse.click(...(await middle(visit, answer.nodes, node)))
    await visit.waitAttribute('breadcrumb', 'data-root', node.name)
    const crumbs = await visit.page.$$eval('[data-testid="breadcrumb"] li', (items) => items.map((li) => li.firstElementChild.title))
    assert.deepEqual(crumbs, [answer.nodes[0].name, node.parent.name, node.name])
    assert.match(visit.page.url(), /[?&]zoom=2-/)

    await visit.page.keyboard.press('Escape')
    await visit.waitAttribute('breadcrumb', 'data-root', answer.nodes[0].name)
    assert.doesNotMatch(visit.page.url(), /zoom=/)
    await visit.page.goBack()
    await visit.waitAttribute('breadcrumb', 'data-root', node.name)
    await visit.page.click('[data-testid="reset-zoom"]')
    await visit.waitAttribute('breadcrumb', 'data-root', answer.nodes[0].name)
  })

  test('the keyboard goes where the mouse goes', async () => {
    const node = widest(answer.nodes, 1)
    await visit.page.focus('[data-testid="flame"]')
    await visit.page.mouse.move(5, 5)
    await visit.page.keyboard.press('Home')
    await visit.page.keyboard.press('ArrowDown')
    await visit.page.waitForFunction((name) => document.querySelector('[data-testid="tooltip-name"]')?.textContent === name, {}, node.name)
    await visit.page.keyboard.press('Enter')
    await visit.waitAttribute('breadcrumb', 'data-root', node.name)
    await visit.page.keyboard.press('Escape')
    await visit.waitAttribute('breadcrumb', 'data-root', answer.nodes[0].name)
  })

  test('search shows the matched share and filters the table', async () => {
    const word = widest(answer.nodes, 2).name.slice(0, 6)
    await visit.type('search', word)
    const expected = matching(answer.nodes, word)
    await visit.waitAttribute('match', 'data-value', expected)
    const percent = Number.parseFloat(await visit.text('match-share'))
    assert.ok(Math.abs(percent - (100 * expected) / answer.nodes[0].total) <= 0.05, `${percent} %`)
    const names = await visit.page.$$eval('[data-testid="top-row"]', (rows) => rows.map((tr) => tr.dataset.name))
    assert.ok(names.length > 0)
    for (const name of names) assert.ok(name.toLowerCase().includes(word.toLowerCase()), name)
    await visit.shoot(screenshots, 'search')
    await visit.type('search', '')
    await visit.waitGone('match')
  })

  test('picking a function in the table marks it in the graph', async () => {
    const [name] = topTable(answer.nodes)[0]
    await visit.page.click('[data-testid="top-row"] button')
    await visit.waitFor('match')
    const under = answer.nodes.filter((n) => n.parent !== null && n.name === name)
    assert.equal(await visit.value('match'), topTable(answer.nodes)[0][2] - (answer.nodes[0].name === name ? answer.nodes[0].self : 0))
    assert.equal(Number(await visit.attribute('match', 'data-frames')), under.length)
    await visit.page.click('[data-testid="top-row"] button')
    await visit.waitGone('match')
  })

  test('a link brings back what it showed', async () => {
    const node = widest(answer.nodes, 2)
    await visit.page.mouse.click(...(await middle(visit, answer.nodes, node)))
    await visit.waitAttribute('breadcrumb', 'data-root', node.name)
    await visit.type('search', 'a')
    await visit.waitFor('match')
    const url = visit.page.url()
    const share = await visit.text('match-share')

    const other = await Visit.open(browser, base)
    try {
      await other.go(url.slice(base.length + 1))
      await other.waitAttribute('breadcrumb', 'data-root', node.name)
      assert.equal(await other.text('match-share'), share)
      assert.equal(await other.page.$eval('[data-testid="service"]', (el) => el.value), given.service)
      assert.equal(await other.page.$eval('[data-testid="search"]', (el) => el.value), 'a')
      assert.equal(other.page.url(), url)
      clean(other)
    } finally {
      await other.page.close()
    }
  })

  test('dragging over the timeline asks for that range; back returns', async () => {
    await visit.go(link(given))
    await visit.drawn()
    const box = await (await visit.page.$('.u-over')).boundingBox()
    const y = box.y + box.height / 2
    await visit.act(async () => {
      await visit.page.mouse.move(box.x + box.width * 0.25, y)
      await visit.page.mouse.down()
      await visit.page.mouse.move(box.x + box.width * 0.5, y, { steps: 4 })
      await visit.page.mouse.up()
    })
    const params = new URL(visit.page.url()).searchParams
    const [from, to] = [Number(params.get('from')), Number(params.get('until'))]
    assert.ok(Math.abs(from - (Number(given.start) + HOUR / 4)) < 30_000, `from ${from}`)
    assert.ok(Math.abs(to - (Number(given.start) + HOUR / 2)) < 30_000, `until ${to}`)
    await visit.act(() => visit.page.goBack())
    assert.equal(new URL(visit.page.url()).searchParams.get('from'), given.start)
  })

  test('refresh asks again with a moved range', async () => {
    await visit.go(`?${new URLSearchParams({ service: given.service, type: given.profileTypeID })}`)
    const first = JSON.parse(visit.calls.get('SelectSeries').request)
    await visit.act(() => visit.page.click('[data-testid="refresh"]'))
    const second = JSON.parse(visit.calls.get('SelectSeries').request)
    assert.ok(Number(second.end) > Number(first.end))
    clean(visit)
  })

  test('it looks right in light and dark, narrow and wide', async () => {
    for (const [name, scheme, width] of [['light', 'light', 1440], ['dark', 'dark', 1440], ['narrow', 'light', 900], ['wide', 'dark', 1600]]) {
      await visit.page.setViewport({ width, height: 900, deviceScaleFactor: name === 'light' ? 2 : 1 })
      await visit.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
      await visit.go(link(given))
      const overflow = await visit.page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      assert.ok(overflow <= 0, `${name}: ${overflow} px too wide`)
      const ratio = await visit.page.$eval('[data-testid="flame"]', (c) => c.width / c.clientWidth / devicePixelRatio)
      assert.ok(Math.abs(ratio - 1) < 0.01, `${name}: canvas is drawn at ${ratio} of the screen's resolution`)
      await visit.drawn()
      await visit.shoot(screenshots, name)
    }
    await visit.page.emulateMediaFeatures([])
    await visit.page.setViewport({ width: 1440, height: 900 })
    clean(visit)
  })

  test('a range without data says so', async () => {
    await visit.go(EMPTY)
    assert.match(await visit.text('empty'), /No data in this range.*kiln push/s)
    assert.equal(await visit.testid('flame'), null)
    await visit.shoot(screenshots, 'empty')
    clean(visit)
  })

  test('a selector that cannot be read shows the API’s code and message', async () => {
    await visit.go(link(given))
    await visit.type('labels', '{a=')
    await visit.act(() => visit.page.keyboard.press('Enter'))
    await visit.waitFor('error')
    const asked = visit.calls.get('SelectMergeStacktraces') ?? visit.calls.get('SelectSeries')
    const { status, body } = await ask(base, 'SelectMergeStacktraces', asked.request)
    assert.equal(status, 400)
    assert.equal(await visit.text('error-code'), body.code)
    assert.equal(await visit.text('error-message'), body.message)
    await visit.shoot(screenshots, 'error')

    await visit.type('labels', '')
    await visit.act(() => visit.page.keyboard.press('Enter'))
    await visit.waitFor('flame-total')
    // The browser itself logs every answer that is not 2xx; nothing else may have been said.
    visit.complaints = visit.complaints.filter((c) => !/Failed to load resource.*status of 400/.test(c))
    clean(visit)
  })
})

describe('what only certain answers show', () => {
  const range = { start: String(Date.now() - HOUR), end: String(Date.now()) }

  async function visiting(options, query, check) {
    const own = await startFake(options)
    const visit = await Visit.open(browser, own.url)
    try {
      await visit.go(query)
      await check(visit)
    } finally {
      await visit.page.close()
      await own.stop()
    }
  }

  test('a hostile function name is text everywhere', async () => {
    await visiting({}, link({ service: 'api-gateway', profileTypeID: CPU, ...range }), async (visit) => {
      const told = JSON.parse(visit.calls.get('SelectMergeStacktraces').text)
      const nodes = tree(told.flamegraph)
      const node = nodes.find((n) => n.name === HOSTILE)
      await visit.type('search', '<IMG')
      await visit.waitAttribute('match', 'data-value', node.total)
      assert.equal(await visit.text('top-row'), HOSTILE + (await visit.page.$$eval('[data-testid="top-row"] td', (t) => t.map((td) => td.textContent).join(''))))
      const at = await middle(visit, nodes, node)
      await visit.page.mouse.move(...at)
      await visit.waitFor('tooltip-name')
      assert.equal(await visit.text('tooltip-name'), HOSTILE)
      await visit.page.mouse.click(...at)
      await visit.waitAttribute('breadcrumb', 'data-root', HOSTILE)
      assert.equal(await visit.page.title(), 'kiln')
      assert.equal(await visit.page.$('img'), null)
      assert.match(await visit.text('main'), /truncated/)
      clean(visit)
    })
  })

  test('a kiln with tenants asks for one, and remembers it', async () => {
    await visiting({ tenant: 'team-a' }, link({ service: 'checkout', profileTypeID: CPU, ...range }), async (visit) => {
      await visit.waitFor('tenant-prompt')
      await visit.shoot(screenshots, 'tenant')
      await visit.type('tenant', 'team-b')
      await visit.act(() => visit.page.keyboard.press('Enter'))
      await visit.waitFor('tenant-prompt')
      await visit.type('tenant', 'team-a')
      await visit.act(() => visit.page.keyboard.press('Enter'))
      await visit.waitFor('flame-total')
      assert.equal(visit.calls.get('SelectSeries').headers['x-scope-orgid'], 'team-a')
      await visit.go(link({ service: 'checkout', profileTypeID: CPU, ...range }))
      await visit.waitFor('flame-total')
      await visit.act(() => visit.page.click('[data-testid="tenant-chip"]'))
      await visit.waitFor('tenant-prompt')
      assert.deepEqual(visit.complaints.filter((c) => !/status of 401/.test(c)), [])
    })
  })

  test('a proxy that fails is named, not taken for an answer', async () => {
    await visiting({ broken: true }, '', async (visit) => {
      await visit.waitFor('error')
      assert.equal(await visit.text('error-code'), 'http_502')
      assert.match(await visit.text('error-message'), /Bad Gateway/)
    })
  })

  test('a kiln that does not answer is named, and tried again', async () => {
    const own = await startFake({})
    const visit = await Visit.open(browser, own.url)
    await visit.go(link({ service: 'checkout', profileTypeID: CPU, ...range }))
    await own.stop()
    await visit.page.click('[data-testid="refresh"]')
    await visit.waitFor('error')
    assert.equal(await visit.text('error-code'), 'unreachable')
    await visit.page.close()
  })

  test('20,000 frames: zooming and searching stay smooth', async (t) => {
    await visiting({}, link({ service: 'giant', profileTypeID: CPU, ...range }), async (visit) => {
      const nodes = tree(JSON.parse(visit.calls.get('SelectMergeStacktraces').text).flamegraph)
      assert.ok(nodes.length >= 20_000, `${nodes.length} frames`)
      const [x, y] = await middle(visit, nodes, widest(nodes, 2))
      const frames = await visit.page.evaluate(zoomAndCount, x, y)
      const busiest = Math.max(...frames)
      t.diagnostic(`work per frame while zooming in and out: ${frames.length} frames, median ${median(frames)} ms, longest ${busiest} ms`)
      assert.ok(median(frames) < 50, `median ${median(frames)} ms`)
      clean(visit)
    })
  })
})

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1]

/** zoomAndCount runs in the page: it zooms in and out and gives the milliseconds between frames until all is calm. */
async function zoomAndCount(x, y) {
  const canvas = document.querySelector('[data-testid="flame"]')
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve))
  const times = []
  for (let round = 0; round < 3; round++) {
    for (const zoomed of [true, false]) {
      let last = await frame()
      const event = zoomed ? new MouseEvent('click', { clientX: x, clientY: y, bubbles: true }) : new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })
      canvas.dispatchEvent(event)
      for (let i = 0; i < 12; i++) {
        const now = await frame()
        times.push(Math.round(now - last))
        last = now
      }
    }
  }
  return times
}
