// Drives the view of operations in headless Chromium: at KILN_URL, or at the fake. What needs certain answers always
// runs against the fake.

import assert from 'node:assert/strict'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, before, describe } from 'node:test'
import { openBrowser, Visit } from './browser.mjs'
import { startFake } from './fake.mjs'
import { HOSTILE } from './names.mjs'

const HELD = '?view=operations&paused=1' // answers are asked for once: page and test can compare

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
})

/** cells gives what a table shows, row by row, headings first. */
function cells(visit, name) {
  return visit.page.$$eval(`[data-testid="table-${name}"] tr`, (rows) => rows.map((tr) => [...tr.children].map((c) => c.textContent.trim())))
}

/** column gives what stands below a heading. */
async function column(visit, name, title) {
  const [headings, ...rows] = await cells(visit, name)
  const at = headings.findIndex((h) => h.replace(/ [↑↓]$/, '') === title)
  assert.ok(at >= 0, `no ${title} in ${headings}`)
  return rows.map((row) => row[at])
}

const told = (visit, method) => JSON.parse(visit.calls.get(method).text)
const grouped = (n) => Number(n ?? 0).toLocaleString('en-US')

function clean(visit, but = /^$/) {
  assert.deepEqual(visit.complaints.filter((c) => !but.test(c)), [])
  assert.deepEqual(visit.foreign, [])
}

describe(`operations at ${process.env.KILN_URL ?? 'the fake'}`, () => {
  let visit

  before(async () => {
    visit = await Visit.open(browser, (process.env.KILN_URL ?? fake.url).replace(/\/$/, ''))
    await visit.go(HELD)
  })
  after(() => visit?.page.close())

  test('the cluster is the API’s', async () => {
    const { members, nodes, cluster, term } = told(visit, 'GetCluster')
    assert.ok(members.length > 0 && nodes.length > 0)
    assert.deepEqual(await column(visit, 'members', 'Member'), members.map((m) => m.id))
    assert.deepEqual(await column(visit, 'members', 'Role'), members.map((m) => (m.leads ? 'leader' : m.suffrage.slice('SUFFRAGE_'.length).toLowerCase())))
    assert.deepEqual(await column(visit, 'members', 'State'), members.map((m) => (m.reachable ? (m.reason ?? 'ok') : 'does not answer')))
    assert.deepEqual(await column(visit, 'members', 'Raft address'), members.map((m) => m.raftAddress))
    assert.deepEqual(await column(visit, 'members', 'Serves at'), members.map((m) => m.serviceAddress ?? '–'))
    assert.deepEqual(await column(visit, 'members', 'Applied'), members.map((m) => (m.reachable ? grouped(m.appliedIndex) : '–')))
    assert.deepEqual(await column(visit, 'members', 'Last'), members.map((m) => (m.reachable ? grouped(m.lastIndex) : '–')))
    const leader = members.find((m) => m.leads)
    assert.deepEqual(
      await column(visit, 'members', 'Behind'),
      members.map((m) => (m.reachable ? grouped(Math.max(0, leader.lastIndex - m.appliedIndex)) : '–')),
    )
    assert.deepEqual(await column(visit, 'nodes', 'Address'), nodes.map((n) => n.address))
    assert.deepEqual(await column(visit, 'nodes', 'Roles'), nodes.map((n) => n.roles.join('')))
    for (const seen of await column(visit, 'nodes', 'Seen')) assert.match(seen, /^(< 1|\d+) s ago$/)
    const section = await visit.text('section-cluster')
    assert.ok(section.includes(`cluster ${cluster}`) && section.includes(`term ${term}`), section)
    clean(visit)
  })

  test('compaction is the API’s', async () => {
    const { levels = [], jobs = [], tombstones = 0 } = told(visit, 'List')
    assert.ok(levels.length > 0)
    assert.deepEqual(await column(visit, 'levels', 'Level'), levels.map((l) => String(l.level ?? 0)))
    assert.deepEqual(await column(visit, 'levels', 'Objects'), levels.map((l) => grouped(l.entries)))
    assert.equal(await visit.value('tombstones'), Number(tombstones))
    assert.deepEqual((await column(visit, 'jobs', 'Job')).sort(), jobs.map((j) => j.id).sort())
    clean(visit)
  })

  test('deletions are the API’s', async () => {
    const { deletions = [] } = told(visit, 'ListDeletions')
    assert.deepEqual((await column(visit, 'deletions', 'Deletion')).sort(), deletions.map((d) => d.id).sort())
    clean(visit)
  })

  test('the link in the header goes there and back, and keeps the rest of the link', async () => {
    await visit.go('?from=now-6h&search=json')
    await visit.act(() => visit.page.click('[data-testid="other-view"]'))
    await visit.waitFor('section-cluster')
    const there = new URL(visit.page.url()).searchParams
    assert.equal(there.get('view'), 'operations')
    assert.equal(there.get('from'), 'now-6h')
    assert.equal(await visit.page.title(), 'kiln · operations')
    assert.equal(await visit.page.evaluate(() => document.activeElement.tagName), 'MAIN')
    await visit.act(() => visit.page.click('[data-testid="other-view"]'))
    await visit.waitFor('search')
    const back = new URL(visit.page.url()).searchParams
    assert.deepEqual([back.get('view'), back.get('from'), back.get('search')], [null, 'now-6h', 'json'])
    assert.equal(await visit.page.title(), 'kiln')
    await visit.page.goBack()
    await visit.waitFor('section-cluster')
    clean(visit)
  })

  test('it looks right in light and dark, narrow and wide', async () => {
    for (const [name, scheme, width] of [['light', 'light', 1440], ['dark', 'dark', 1440], ['narrow', 'dark', 390], ['wide', 'light', 1800]]) {
      await visit.page.setViewport({ width, height: 1200, deviceScaleFactor: name === 'narrow' ? 2 : 1 })
      await visit.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
      await visit.go(HELD)
      const overflow = await visit.page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      assert.ok(overflow <= 0, `${name}: ${overflow} px too wide`)
      await visit.shoot(screenshots, `operations-${name}`)
    }
    await visit.page.emulateMediaFeatures([])
    await visit.page.setViewport({ width: 1440, height: 900 })
    clean(visit)
  })
})

describe('what only certain answers of operations show', () => {
  async function visiting(options, query, check) {
    const own = await startFake(options)
    const visit = await Visit.open(browser, own.url)
    try {
      await check(visit, () => visit.go(query))
    } finally {
      await visit.page.close()
      await own.stop()
    }
  }

  /** shows waits until a part of the page has a text. */
  const shows = (visit, id, text) =>
    visit.page.waitForFunction((selector, t) => document.querySelector(selector)?.textContent.includes(t), {}, `[data-testid="${id}"]`, text)

  /** hurried makes the page's timers fifty times faster: what happens every few seconds need not be waited for. */
  const hurried = (visit) =>
    visit.page.evaluateOnNewDocument(() => {
      const set = window.setTimeout
      window.setTimeout = (f, ms) => set(f, ms / 50)
    })

  test('every table is read as one: caption, headings of columns and rows', async () => {
    await visiting({}, HELD, async (visit, go) => {
      await go()
      const tables = await visit.page.$$eval('main table', (all) =>
        all.map((t) => ({
          caption: t.caption?.textContent.trim(),
          columns: [...t.tHead.querySelectorAll('th')].every((th) => th.scope === 'col'),
          rows: [...t.tBodies[0].rows].every((tr) => tr.cells[0].tagName === 'TH' && tr.cells[0].scope === 'row'),
        })),
      )
      assert.deepEqual(tables.map((t) => t.caption.replace(/ \d+$/, '')), ['Members of the metastore', 'Nodes', 'Levels', 'Jobs', 'Deletions'])
      assert.ok(tables.every((t) => t.columns && t.rows), JSON.stringify(tables))
      clean(visit)
    })
  })

  test('a heading sorts, by mouse and by keyboard, and the link says how', async () => {
    await visiting({}, HELD, async (visit, go) => {
      await go()
      assert.deepEqual(await column(visit, 'jobs', 'State'), ['running', 'waiting', 'waiting', 'done', 'done'])
      await visit.page.click('[data-testid="sort-jobs-sources"]')
      await visit.page.waitForSelector('[aria-sort="descending"] [data-testid="sort-jobs-sources"]')
      assert.deepEqual(await column(visit, 'jobs', 'Sources'), ['24', '22', '20', '20', '9'])
      await visit.page.focus('[data-testid="sort-jobs-sources"]')
      await visit.page.keyboard.press('Enter')
      await visit.page.waitForSelector('[aria-sort="ascending"] [data-testid="sort-jobs-sources"]')
      assert.deepEqual(await column(visit, 'jobs', 'Sources'), ['9', '20', '20', '22', '24'])
      assert.equal(new URL(visit.page.url()).searchParams.get('sort.jobs'), 'sources')

      await visit.page.reload()
      await visit.settled()
      assert.deepEqual(await column(visit, 'jobs', 'Sources'), ['9', '20', '20', '22', '24'])
      assert.deepEqual(await column(visit, 'deletions', 'State'), ['hidden', 'finished', 'finished']) // each table for itself
      clean(visit)
    })
  })

  test('ages are by the clock of the server, not of the browser', async () => {
    const anHourAgo = new Date(Date.now() - 3_600_000)
    const created = String(BigInt(anHourAgo.getTime() - 65_000) * 1_000_000n)
    const answers = { List: () => ({ jobs: [{ id: 'j', state: 'JOB_STATE_WAITING', created }] }) }
    await visiting({ answers, headers: { date: anHourAgo.toUTCString() } }, HELD, async (visit, go) => {
      await go()
      assert.match((await column(visit, 'jobs', 'Age'))[0], /^1 min [45] s$/)
    })
  })

  test('hostile names are text in every table', async () => {
    await visiting({}, HELD, async (visit, go) => {
      await go()
      assert.ok((await column(visit, 'nodes', 'Address')).includes(HOSTILE))
      assert.ok((await column(visit, 'nodes', 'Roles')).includes(HOSTILE))
      assert.ok((await column(visit, 'jobs', 'Tenant')).includes(HOSTILE))
      assert.ok((await column(visit, 'jobs', 'Last failure')).some((text) => text.includes(HOSTILE)))
      assert.ok((await column(visit, 'deletions', 'Service')).includes(HOSTILE))
      assert.ok((await column(visit, 'deletions', 'Selector')).some((text) => text.includes(HOSTILE)))
      assert.equal(await visit.page.$('img'), null)
      assert.equal(await visit.page.title(), 'kiln · operations')
      clean(visit)
    })
  })

  test('what a server does not serve is one line in its place', async () => {
    await visiting({ absent: ['GetCluster'] }, '?view=operations', async (visit, go) => {
      await go()
      assert.match(await visit.text('absent-cluster'), /does not serve kiln\.admin\.v1\.ClusterService/)
      assert.equal(await visit.testid('table-members'), null)
      assert.equal(await visit.testid('fault-cluster'), null)
      assert.equal((await cells(visit, 'jobs')).length, 6)
      assert.equal((await cells(visit, 'deletions')).length, 4)
      clean(visit, /status of 404/)
      await visit.shoot(screenshots, 'operations-absent')
    })
  })

  test('it is renewed by itself, stays through an outage, and comes back', async () => {
    let term = 1
    const options = { answers: { GetCluster: () => ({ term: String(term) }) } }
    await visiting(options, '?view=operations', async (visit, go) => {
      await hurried(visit)
      await go()
      term = 2
      await shows(visit, 'section-cluster', 'term 2')
      options.leaderless = true
      await visit.waitFor('fault-cluster')
      assert.match(await visit.text('fault-cluster'), /unavailable no member of the metastore leads What is shown is as of \d\d:\d\d:\d\d/)
      await visit.waitFor('fault-compaction')
      assert.equal((await cells(visit, 'jobs')).length, 6)
      await visit.shoot(screenshots, 'operations-outage')
      options.leaderless = false
      term = 3
      await shows(visit, 'section-cluster', 'term 3')
      await visit.waitGone('fault-cluster')
      await visit.waitGone('fault-compaction')
      clean(visit, /status of 503/)
    })
  })

  test('a call that hangs is given up, and the others do not wait for it', async () => {
    await visiting({ answers: { GetCluster: () => new Promise(() => {}) } }, '?view=operations', async (visit, go) => {
      await visit.page.evaluateOnNewDocument(() => {
        const timeout = AbortSignal.timeout.bind(AbortSignal)
        AbortSignal.timeout = (ms) => timeout(ms / 50)
      })
      await go()
      assert.match(await visit.text('fault-cluster'), /^unreachable kiln did not answer within 15 s$/)
      assert.equal((await cells(visit, 'jobs')).length, 6)
      clean(visit)
    })
  })

  test('while nobody sees the page it does not ask', async () => {
    let asked = 0
    const answers = { GetCluster: () => ({ term: String(++asked) }) }
    await visiting({ answers }, '?view=operations', async (visit, go) => {
      await hurried(visit)
      await visit.page.evaluateOnNewDocument(() => {
        // The page is hidden when the test says so. It has nothing left to do when all three of its tables wait to be seen.
        window.hidden = false
        window.waiting = 0
        Object.defineProperty(document, 'hidden', { get: () => window.hidden })
        const listen = document.addEventListener.bind(document)
        document.addEventListener = (type, ...rest) => {
          if (type === 'visibilitychange') window.waiting++
          listen(type, ...rest)
        }
      })
      await go()
      await visit.page.evaluate(() => (window.hidden = true))
      await visit.page.waitForFunction(() => window.waiting === 3)
      await visit.settled()
      const before = asked
      assert.ok(before > 0)
      await visit.page.evaluate(() => {
        window.hidden = false
        document.dispatchEvent(new Event('visibilitychange'))
      })
      await shows(visit, 'section-cluster', `term ${before + 1}`)
      clean(visit)
    })
  })

  test('paused, it is renewed by hand alone', async () => {
    let term = 1
    await visiting({ answers: { GetCluster: () => ({ term: String(term) }) } }, '?view=operations', async (visit, go) => {
      await visit.page.evaluateOnNewDocument(() => {
        window.timers = new Set() // those that will ask again
        const [set, clear] = [window.setTimeout, window.clearTimeout]
        window.setTimeout = (f, ms) => {
          const timer = set(f, ms)
          if (ms >= 1000) window.timers.add(timer)
          return timer
        }
        window.clearTimeout = (timer) => (window.timers.delete(timer), clear(timer))
      })
      await go()
      await visit.page.waitForFunction(() => window.timers.size === 3)
      await visit.page.click('[data-testid="pause"]')
      await visit.page.waitForFunction(() => window.timers.size === 0)
      assert.equal(new URL(visit.page.url()).searchParams.get('paused'), '1')
      term = 2
      await visit.act(() => visit.page.click('[data-testid="refresh"]'))
      await shows(visit, 'section-cluster', 'term 2')
      assert.equal(await visit.page.evaluate(() => window.timers.size), 0)
      term = 3
      await visit.page.click('[data-testid="pause"]') // going on begins with a look
      await shows(visit, 'section-cluster', 'term 3')
      await visit.page.waitForFunction(() => window.timers.size === 3)
      assert.equal(new URL(visit.page.url()).searchParams.get('paused'), null)
      clean(visit)
    })
  })

  test('a kiln with tenants asks for one here, too', async () => {
    await visiting({ tenant: 'team-a', absent: ['GetCluster'] }, '?view=operations', async (visit, go) => {
      await go()
      await visit.waitFor('tenant-prompt')
      await visit.type('tenant', 'team-a')
      await visit.page.keyboard.press('Enter')
      await visit.waitFor('table-jobs')
      await visit.waitFor('absent-cluster')
      assert.equal(visit.calls.get('List').headers['x-scope-orgid'], 'team-a')
      await visit.page.click('[data-testid="tenant-chip"]')
      await visit.waitFor('tenant-prompt')
      assert.equal(await visit.testid('table-jobs'), null)
      clean(visit, /status of 40[14]/)
    })
  })

  test('more rows than anybody reads are counted, not drawn', async () => {
    const jobs = Array.from({ length: 1_700 }, (_, i) => ({ id: `job-${i}`, state: 'JOB_STATE_WAITING' }))
    await visiting({ answers: { List: () => ({ jobs }) } }, HELD, async (visit, go) => {
      await go()
      assert.equal((await cells(visit, 'jobs')).length, 501)
      assert.match(await visit.text('section-compaction'), /1,200 more are not shown/)
      clean(visit)
    })
  })
})
