// A headless Chromium that watches what the page does while a test drives it.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import puppeteer from 'puppeteer-core'

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** The path of a call ends in its service and its method. */
const CALL = /Service\/(\w+)$/

export async function openBrowser() {
  const userDataDir = await mkdtemp(join(tmpdir(), 'kiln-page-'))
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
  const browser = await puppeteer.launch({ executablePath, args: FLAGS, userDataDir })
  const close = async () => {
    await browser.close()
    await rm(userDataDir, { recursive: true, force: true, maxRetries: 5 })
  }
  return { browser, close }
}

/** Visit is one page with a record of its requests and of everything it complained about. */
export class Visit {
  complaints = []
  foreign = []
  /** The last answered API calls by method: {request, headers, status, text}. */
  calls = new Map()
  pending = []

  static async open(browser, base) {
    const visit = new Visit()
    visit.base = base
    const page = (visit.page = await browser.newPage())
    await page.setViewport({ width: 1440, height: 900 })
    page.on('pageerror', (err) => visit.complaints.push(`page error: ${err.message}`))
    page.on('console', (m) => {
      if (m.type() === 'error' || m.type() === 'warn') visit.complaints.push(`console: ${m.text()}`)
    })
    page.on('request', (r) => {
      if (!r.url().startsWith(`${base}/`) && !r.url().startsWith('data:')) visit.foreign.push(r.url())
    })
    page.on('response', (r) => visit.pending.push(visit.record(r)))
    return visit
  }

  async record(response) {
    const method = CALL.exec(response.url())?.[1]
    if (method === undefined) return
    const request = response.request()
    const text = await response.text().catch(() => '') // a cancelled call has no body
    this.calls.set(method, { request: request.postData(), headers: request.headers(), status: response.status(), text })
  }

  async go(query) {
    await this.page.bringToFront()
    await this.page.goto(`${this.base}/${query}`)
    await this.settled()
  }

  /** settled waits until the page shows an answer of whatever kind and asks for nothing more. */
  async settled() {
    await this.page.waitForSelector('main[aria-busy="false"]')
    await Promise.all(this.pending)
  }

  /** act does something that makes the page ask again, and waits for the answer. */
  async act(action) {
    const asked = this.page.waitForResponse((r) => CALL.test(r.url()))
    await action()
    await asked
    await this.settled()
  }

  /** drawn waits until the timeline and the flame graph are on the screen. */
  async drawn() {
    await this.page.waitForSelector('.u-over')
    await this.page.waitForFunction(() => {
      const canvas = document.querySelector('[data-testid="flame"]')
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
      return new Set(new Uint32Array(data.buffer)).size > 3 // more than background and one kind of frame
    })
  }

  testid(id) {
    return this.page.$(`[data-testid="${id}"]`)
  }

  waitFor(id) {
    return this.page.waitForSelector(`[data-testid="${id}"]`)
  }

  waitGone(id) {
    return this.page.waitForSelector(`[data-testid="${id}"]`, { hidden: true })
  }

  text(id) {
    return this.page.$eval(`[data-testid="${id}"]`, (el) => el.textContent.trim())
  }

  attribute(id, name) {
    return this.page.$eval(`[data-testid="${id}"]`, (el, n) => el.getAttribute(n), name)
  }

  async value(id) {
    return Number(await this.attribute(id, 'data-value'))
  }

  /** waitAttribute waits until an attribute of an element has a value. */
  waitAttribute(id, name, value) {
    return this.page.waitForFunction(
      (selector, n, v) => document.querySelector(selector)?.getAttribute(n) === v,
      {},
      `[data-testid="${id}"]`,
      name,
      String(value),
    )
  }

  /** type replaces what is in a field. */
  async type(id, text) {
    const field = await this.testid(id)
    await field.focus()
    await field.evaluate((el) => el.select())
    await this.page.keyboard.press('Backspace')
    if (text !== '') await this.page.keyboard.type(text)
  }

  async shoot(folder, name) {
    await this.page.screenshot({ path: join(folder, `${name}.png`) })
  }
}
