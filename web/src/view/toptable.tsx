// The top table: every function with its self and total. It is also what a screen reader reads instead of the canvas.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { fill, shortName, type Scheme } from '../model/colour.ts'
import { formatShare, formatValue, grouped } from '../model/format.ts'
import { sorted, type Column, type Order, type Row } from '../model/top.ts'
import { type Data } from '../state.ts'

/** As in style.css. Rows outside of the window are left out: thousands of them would make typing slow. */
const ROW_HEIGHT = 25
const OVERSCAN = 12

interface Props {
  data: Data
  scheme: Scheme
  found: Uint8Array | null
  picked: string
  onPick: (name: string) => void
  order: Order
  onOrder: (order: Order) => void
}

export function TopTable(props: Props) {
  const { data, found, order } = props
  const names = data.flame.names
  const rows = useMemo(() => {
    const kept = found === null ? data.rows : data.rows.filter((r) => found[r.name] === 1)
    return sorted(kept, names, order)
  }, [data, found, order])
  const box = useRef<HTMLDivElement>(null)
  const [from, to] = useWindow(box, rows)

  return (
    <section class="panel top" aria-label="Functions">
      <div class="scroll" ref={box} data-testid="top-scroll">
        <table data-testid="top-table" aria-rowcount={rows.length + 1} aria-label="Functions by self and total">
          <thead>
            <tr aria-rowindex={1}>
              <Heading {...props} column="name" title={`Function · ${grouped(rows.length)}`} />
              <Heading {...props} column="self" title="Self" />
              <Heading {...props} column="total" title="Total" />
            </tr>
          </thead>
          <tbody>
            <Gap rows={from} />
            {rows.slice(from, to).map((row, i) => (
              <FunctionRow key={row.name} row={row} index={from + i + 2} {...props} />
            ))}
            <Gap rows={rows.length - to} />
          </tbody>
        </table>
        {rows.length === 0 && <p class="nothing">No function matches.</p>}
      </div>
    </section>
  )
}

/** useWindow tells which rows are near enough to be rendered, and goes back to the top when the rows change. */
function useWindow(box: { current: HTMLDivElement | null }, rows: Row[]): [number, number] {
  const [view, setView] = useState({ top: 0, height: 800 })
  useEffect(() => {
    const el = box.current!
    const measure = () => {
      const top = Math.floor(el.scrollTop / ROW_HEIGHT) * ROW_HEIGHT
      setView((was) => (was.top === top && was.height === el.clientHeight ? was : { top, height: el.clientHeight }))
    }
    const resized = new ResizeObserver(measure)
    resized.observe(el)
    el.addEventListener('scroll', measure, { passive: true })
    return () => {
      resized.disconnect()
      el.removeEventListener('scroll', measure)
    }
  }, [])
  useEffect(() => {
    box.current!.scrollTop = 0
  }, [rows])
  const from = Math.max(0, Math.floor(view.top / ROW_HEIGHT) - OVERSCAN)
  const to = Math.ceil((view.top + view.height) / ROW_HEIGHT) + OVERSCAN
  return [Math.min(from, rows.length), Math.min(to, rows.length)]
}

function Gap({ rows }: { rows: number }) {
  return rows === 0 ? null : (
    <tr class="gap" aria-hidden="true">
      <td colSpan={3} style={{ height: `${rows * ROW_HEIGHT}px` }} />
    </tr>
  )
}

function Heading({ column, title, order, onOrder }: Props & { column: Column; title: string }) {
  const active = order.by === column
  const sort = active ? (order.descending ? 'descending' : 'ascending') : 'none'
  const click = () => onOrder({ by: column, descending: active ? !order.descending : column !== 'name' })
  return (
    <th scope="col" class={column} aria-sort={sort}>
      <button type="button" onClick={click} data-testid={`sort-${column}`}>
        {title}
        <span class="arrow" aria-hidden="true">
          {active ? (order.descending ? ' ↓' : ' ↑') : ''}
        </span>
      </button>
    </th>
  )
}

function FunctionRow({ row, index, data, scheme, picked, onPick, order }: Props & { row: Row; index: number }) {
  const name = data.flame.names[row.name]!
  const isPicked = name === picked
  const by = order.by === 'name' ? 'self' : order.by // what the bar behind the row shows, as a share of all
  return (
    <tr class={isPicked ? 'picked' : ''} aria-rowindex={index} data-testid="top-row" data-name={name} onClick={() => onPick(name)}>
      <th scope="row" class="name">
        <i class="bar" style={{ width: `${(100 * row[by]) / data.flame.total[0]!}%` }} />
        <button type="button" title={name} aria-label={name} aria-pressed={isPicked}>
          <i class="dot" style={{ background: fill(name, scheme) }} />
          {shortName(name)}
        </button>
      </th>
      <Amount value={row.self} data={data} column="self" />
      <Amount value={row.total} data={data} column="total" />
    </tr>
  )
}

function Amount({ value, data, column }: { value: number; data: Data; column: Column }) {
  const whole = data.flame.total[0]!
  return (
    <td class={column} data-value={value} title={`${formatShare(value, whole)} of all`}>
      {value === 0 ? <span class="zero">0</span> : formatValue(value, data.type.unit)}
    </td>
  )
}
