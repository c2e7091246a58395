// A table of operations: a row per thing, named by its first cell; a click on a heading sorts.

import { type ComponentChildren } from 'preact'
import { useMemo } from 'preact/hooks'
import { formatAge, formatValue, grouped } from '../model/format.ts'
import { type Link } from '../model/link.ts'
import { type TableName } from '../model/operations.ts'
import { sortRows, type Sort, type Value } from '../model/table.ts'
import { type Navigate } from '../state.ts'

/** More than anybody reads, few enough to draw every few seconds. What is left out is counted below the table. */
const MOST_ROWS = 500

export interface Column<Row, Key extends string = string> {
  key: Key
  title: string
  /** Aligned to the right, and sorted from the largest at first. */
  numeric?: boolean
  cell: (row: Row) => ComponentChildren
}

interface TableProps<Row, Key extends string> {
  name: string
  caption: string
  /** The heading above says the same: only who cannot see it is told again. */
  captionHidden?: boolean
  columns: Column<Row, Key>[]
  rows: Row[]
  rowKey: (row: Row) => string | number
  sort?: Sort
  onSort?: (sort: Sort) => void
}

export function Table<Row, Key extends string>(props: TableProps<Row, Key>) {
  const { name, caption, captionHidden, columns, rows, rowKey, sort } = props
  return (
    <div class="panel">
      <div class="across">
        <table class="ruled" data-testid={`table-${name}`}>
          <caption class={captionHidden ? 'hidden' : ''}>
            <span>
              {caption} {sort !== undefined && <b>{grouped(rows.length)}</b>}
            </span>
          </caption>
          <thead>
            <tr>
              {columns.map((c) => (
                <Heading key={c.key} column={c} {...props} />
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, MOST_ROWS).map((row) => (
              <TableRow key={rowKey(row)} row={row} columns={columns} />
            ))}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && <p class="nothing">None.</p>}
      {rows.length > MOST_ROWS && (
        <p class="nothing">
          {grouped(rows.length - MOST_ROWS)} more are not shown.
        </p>
      )}
    </div>
  )
}

interface SortedProps<Row, Key extends string> extends Omit<TableProps<Row, Key>, 'sort' | 'onSort'> {
  name: TableName
  values: Record<Key, (row: Row) => Value>
  link: Link
  navigate: Navigate
}

/** SortedTable keeps its order in the link. */
export function SortedTable<Row, Key extends string>({ values, link, navigate, ...table }: SortedProps<Row, Key>) {
  const sort = link.sorts[table.name]
  const rows = useMemo(() => sortRows(table.rows, values, sort), [table.rows, values, sort])
  const onSort = (next: Sort) => navigate({ sorts: { ...link.sorts, [table.name]: next } }, 'replace')
  return <Table {...table} rows={rows} sort={sort} onSort={onSort} />
}

function Heading<Row, Key extends string>({ name, column, sort, onSort }: TableProps<Row, Key> & { column: Column<Row, Key> }) {
  const { key, title, numeric = false } = column
  const align = numeric ? 'number' : ''
  if (sort === undefined || onSort === undefined) {
    return (
      <th scope="col" class={align}>
        <span>{title}</span>
      </th>
    )
  }
  const active = sort.by === key
  const direction = sort.descending ? 'descending' : 'ascending'
  const click = () => onSort({ by: key, descending: active ? !sort.descending : numeric })
  return (
    <th scope="col" class={align} aria-sort={active ? direction : 'none'}>
      <button type="button" onClick={click} data-testid={`sort-${name}-${key}`}>
        {title}
        <span class="arrow" aria-hidden="true">
          {active ? (sort.descending ? ' ↓' : ' ↑') : ''}
        </span>
      </button>
    </th>
  )
}

function TableRow<Row, Key extends string>({ row, columns }: { row: Row; columns: Column<Row, Key>[] }) {
  const [first, ...rest] = columns
  return (
    <tr>
      <th scope="row">{first!.cell(row)}</th>
      {rest.map((c) => (
        <td key={c.key} class={c.numeric ? 'number' : ''}>
          {c.cell(row)}
        </td>
      ))}
    </tr>
  )
}

const ULID = /^[0-9A-Z]{26}$/

/** Id is whole for whoever reads or copies it. Of a ULID the time in front steps back, and goes first where it is narrow. */
export function Id({ id }: { id: string }) {
  if (!ULID.test(id)) return <code>{id}</code>
  return (
    <code title={id}>
      <span class="ulid-time">{id.slice(0, 10)}</span>
      {id.slice(10)}
    </code>
  )
}

/** Code is somebody's text that is read letter by letter. */
export function Code({ text }: { text: string | null }) {
  return text === null ? <None /> : <code>{text}</code>
}

/** Name is what somebody called something, however long: its column stays as wide as most names need. */
export function Name({ text }: { text: string }) {
  return <span class="name" title={text}>{text}</span>
}

/** Passage is text of any length: a few lines of it, and all of it for whoever points at it or has it read. */
export function Passage({ text, code = false }: { text: string; code?: boolean }) {
  return text === '' ? <None /> : <span class={code ? 'passage code' : 'passage'} title={text}>{text}</span>
}

/** None stands where there is no name or value, and may say what that means. */
export function None({ children = '–' }: { children?: string }) {
  return <span class="none">{children}</span>
}

export function Count({ value }: { value: number | null }) {
  return value === null ? <None /> : value === 0 ? <Zero /> : <>{grouped(value)}</>
}

export function Bytes({ value }: { value: number }) {
  return value === 0 ? <Zero /> : <>{formatValue(value, 'bytes')}</>
}

/** Zero steps back, as in the top table. */
export function Zero() {
  return <span class="zero">0</span>
}

export function Age({ ms, ago = false }: { ms: number | null; ago?: boolean }) {
  return ms === null ? <None /> : <>{formatAge(ms)}{ago && ' ago'}</>
}

export function Took({ ms }: { ms: number | null }) {
  return ms === null ? <None /> : <>{formatValue(ms, 'milliseconds')}</>
}

export type Tone = 'good' | 'bad' | 'busy' | 'idle' | 'done'

/** State says in a word how something is; the dot before it only helps to find it. */
export function State({ tone, children }: { tone: Tone; children: string }) {
  return (
    <span class={`state ${tone}`}>
      <i class="dot" />
      {children}
    </span>
  )
}
