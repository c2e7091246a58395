// The timeline: how much was recorded when. Dragging over it selects a range.

import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { type Scheme } from '../model/colour.ts'
import { axisTime, digits, formatClock, formatDay, formatSpan, formatValue, tickStep } from '../model/format.ts'
import { inCores, profileTypeLabel } from '../model/profiletype.ts'
import { type Data } from '../state.ts'

const HEIGHT = 128

interface Props {
  data: Data
  scheme: Scheme
  onSelect: (from: number, until: number) => void
}

export function Timeline({ data, scheme, onSelect }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const readout = useRef<HTMLSpanElement>(null)
  const select = useRef(onSelect)
  select.current = onSelect

  useEffect(() => {
    const [el, note] = [box.current!, readout.current!]
    const plot = draw(el, data, {
      select: (from, until) => select.current(from, until),
      hover: (text) => (note.textContent = text),
    })
    const resized = new ResizeObserver(() => plot.setSize({ width: el.clientWidth, height: HEIGHT }))
    resized.observe(el)
    return () => {
      resized.disconnect()
      plot.destroy()
    }
  }, [data, scheme])

  const { timeline, type, span, step } = data
  return (
    <section class="panel timeline" aria-label="Timeline" data-testid="timeline">
      <div class="caption">
        <h2>{profileTypeLabel(type)}</h2>
        <p>
          <b data-testid="timeline-sum" data-value={timeline.sum}>
            {formatValue(timeline.sum, type.unit)}
          </b>{' '}
          in {formatSpan(span.end - span.start)}
          {inCores(type) && <> · average {digits(timeline.sum / (span.end - span.start) / 1e6)} cores</>} · peak {perStep(data, timeline.peak)}
          {!inCores(type) && <> in {formatSpan(step * 1000)}</>}
        </p>
        <span class="readout" ref={readout} aria-hidden="true" />
        <span class="hint">drag to zoom</span>
      </div>
      <div class="plot" ref={box} />
    </section>
  )
}

/** perStep prints one point: as processor cores where that is what it means, otherwise in its own unit. */
function perStep(data: Data, value: number): string {
  return inCores(data.type) ? `${digits(value / (data.step * 1e9))} cores` : formatValue(value, data.type.unit)
}

interface Events {
  select: (from: number, until: number) => void
  hover: (text: string) => void
}

function draw(box: HTMLElement, data: Data, events: Events): uPlot {
  const style = getComputedStyle(box)
  const colour = (name: string) => style.getPropertyValue(name).trim()
  const { timeline, span, step } = data
  const cores = inCores(data.type)
  const divisor = cores ? step * 1e9 : 1
  const max = timeline.peak / divisor || 1
  const tick = tickStep(max, cores ? 'count' : data.type.unit)
  const ticks = Array.from({ length: Math.floor((max * 1.05) / tick) + 1 }, (_, i) => i * tick)
  const label = (v: number) => (v === 0 ? '0' : cores ? `${Number(v.toPrecision(3))}` : formatValue(v, data.type.unit))

  const axis: uPlot.Axis = {
    stroke: colour('--muted'),
    font: `11px ${colour('--sans')}`,
    grid: { stroke: colour('--grid'), width: 1 },
    ticks: { show: false },
    gap: 6,
  }
  const options: uPlot.Options = {
    width: box.clientWidth,
    height: HEIGHT,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: true, range: [span.start / 1000, span.end / 1000] },
      y: { range: [0, max * 1.08] },
    },
    axes: [
      { ...axis, size: 24, space: 80, values: (_, splits, __, ___, incr) => splits.map((s) => axisTime(s, incr)) },
      { ...axis, size: 76, splits: () => ticks, values: (_, splits) => splits.map((s, i) => (cores && i === splits.length - 1 ? `${label(s)} cores` : label(s))) },
    ],
    series: [
      {},
      {
        stroke: colour('--accent'),
        width: 1.5,
        fill: colour('--accent-soft'),
        paths: uPlot.paths.stepped!({ align: -1 }), // a point's value belongs to the step that ends there
        points: { show: false },
      },
    ],
    cursor: { y: false, drag: { x: true, y: false, setScale: false, dist: 4 }, points: { show: false } },
    hooks: {
      setCursor: [(u) => events.hover(describe(u, data))],
      setSelect: [
        (u) => {
          if (u.select.width === 0) return
          const edge = (x: number) => Math.round(u.posToVal(x, 'x')) * 1000
          const from = edge(u.select.left)
          const until = edge(u.select.left + u.select.width)
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
          if (from < until) events.select(from, until)
        },
      ],
    },
  }
  return new uPlot(options, [timeline.times, timeline.values.map((v) => v / divisor)], box)
}

/** describe says what is below the cursor: the step that holds it, not the nearest point. */
function describe(u: uPlot, data: Data): string {
  const { left } = u.cursor
  if (left === undefined || left < 0) return ''
  const at = u.posToVal(left, 'x')
  const { times, values } = data.timeline
  const i = times.findIndex((t) => t >= at)
  const value = i >= 0 && at > times[i]! - data.step ? values[i]! : 0
  return `${formatDay(at * 1000)} ${formatClock(at * 1000)} · ${perStep(data, value)}`
}
