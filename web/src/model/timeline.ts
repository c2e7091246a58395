// The timeline: the sum of all series the API returned, as one line without holes.

import { type Span } from './range.ts'

export interface WireSeries {
  points?: { value?: number | string; timestamp?: string | number }[]
}

export interface Timeline {
  /** Right edges of the steps, in seconds, ascending. */
  times: number[]
  /** Raw values; 0 where nothing was recorded. */
  values: number[]
  sum: number
  peak: number
}

/** timeline sums the series and draws silence as silence: zeros from the start, in every hole, and up to the end. */
export function timeline(series: WireSeries[], step: number, span: Span): Timeline {
  const sums = new Map<number, number>()
  for (const { points = [] } of series) {
    for (const p of points) {
      const time = Number(p.timestamp ?? 0) / 1000
      sums.set(time, (sums.get(time) ?? 0) + Number(p.value ?? 0))
    }
  }
  const line: Timeline = { times: [], values: [], sum: 0, peak: 0 }
  const add = (time: number, value: number) => {
    line.times.push(time)
    line.values.push(value)
  }
  let last = span.start / 1000
  const silence = (until: number) => {
    if (until - last <= step * 1.5) return // the steps touch
    if (line.times.length > 0) add(last + step, 0)
    if (line.times.length === 0 || until - step > last + step) add(until - step, 0)
  }
  for (const time of [...sums.keys()].sort((a, b) => a - b)) {
    const value = sums.get(time)!
    silence(time)
    add(time, value)
    line.sum += value
    line.peak = Math.max(line.peak, value)
    last = time
  }
  if (line.times.length > 0) silence(span.end / 1000)
  return line
}
