// Time ranges: relative to now, or fixed in milliseconds since the epoch.

export type Range = { last: string } | { from: number; until: number }

export interface Span {
  start: number
  end: number
}

export const PRESETS: { last: string; label: string }[] = [
  { last: '5m', label: 'Last 5 minutes' },
  { last: '15m', label: 'Last 15 minutes' },
  { last: '1h', label: 'Last 1 hour' },
  { last: '6h', label: 'Last 6 hours' },
  { last: '24h', label: 'Last 24 hours' },
]
export const DEFAULT_LAST = '1h'

const UNITS: Record<string, number> = { s: 1e3, m: 60e3, h: 3_600e3, d: 86_400e3 }

/** lengthOf reads 5m, 1h, 2d; NaN if it is none of these. */
export function lengthOf(last: string): number {
  const parts = /^(\d{1,6})([smhd])$/.exec(last)
  return parts === null ? NaN : Number(parts[1]) * UNITS[parts[2]!]!
}

/** parseRange reads from=now-1h, or from and until in milliseconds; anything else is the default. */
export function parseRange(from: string | null, until: string | null): Range {
  if (from !== null && from.startsWith('now-') && lengthOf(from.slice(4)) > 0) return { last: from.slice(4) }
  const fixed = { from: Number(from ?? NaN), until: Number(until ?? NaN) }
  const valid = from !== null && until !== null && Number.isSafeInteger(fixed.from) && Number.isSafeInteger(fixed.until)
  return valid && fixed.from < fixed.until ? fixed : { last: DEFAULT_LAST }
}

export function resolve(range: Range, now: number): Span {
  if ('last' in range) return { start: now - lengthOf(range.last), end: now }
  return { start: range.from, end: range.until }
}

const STEPS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400]
const POINTS = 250

/**
 * stepOf chooses the seconds between points of a timeline: about 250 of them, but in ranges of five minutes and more
 * not closer than 15 s, because profiles arrive that far apart and a finer step would only show holes.
 */
export function stepOf(span: Span): number {
  const seconds = (span.end - span.start) / 1000
  const least = Math.max(seconds / POINTS, seconds >= 300 ? 15 : Math.min(15, seconds / 20))
  return STEPS.find((s) => s >= least) ?? Math.ceil(least / 86400) * 86400
}

/** localInput and fromLocalInput translate to and from <input type=datetime-local step=1>. */
export function localInput(ms: number): string {
  const d = new Date(ms)
  const pad = (n: number, width = 2) => String(n).padStart(width, '0')
  const day = `${pad(d.getFullYear(), 4)}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`
  return `${day}T${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`
}

export function fromLocalInput(text: string): number {
  return new Date(text).getTime()
}
